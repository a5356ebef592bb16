//! What users and containerd choose by: filters of List, patterns of --filter, and --format.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use plyfs::image::Timestamp;
use plyfs::store::{SnapshotKind, SnapshotRecord};
use serde_json::{Value, json};

static RECORD: LazyLock<SnapshotRecord> = LazyLock::new(|| {
    let at = Timestamp::from_unix(0).unwrap();
    SnapshotRecord {
        name: "default/1/app".to_owned(),
        parent: Some("base".to_owned()),
        kind: SnapshotKind::Active,
        created: at,
        updated: at,
        labels: BTreeMap::from([("containerd.io/gc.root".to_owned(), "yes".to_owned())]),
        usage: None,
    }
});
static OBJECT: LazyLock<Value> = LazyLock::new(|| {
    json!({ "ID": "0a", "Names": ["a", "b"], "Config": { "Cmd": null, "N": 3 }, "Size": 1.5 })
});

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match kind % 3 {
        0 => plyfs::snapshotter::fuzz_filter(text, &RECORD),
        1 => {
            let (pattern, name) = text.split_once('\n').unwrap_or((text, "busybox"));
            let fits = plyfs::cli::fuzz_glob(pattern, name);
            assert!(fits || pattern != "*" || name.contains('/'));
        }
        _ => plyfs::cli::fuzz_template(text, &OBJECT),
    }
});
