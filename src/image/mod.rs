//! Pure data: digests, references, image configs and manifests.
