//! The kernel's FUSE protocol: decode a request, make one overlay call, reply.
