//! Layer trees as text.
//!
//! One entry a line, `KIND PATH [ARGUMENT] [KEY=VALUE]...`; words may be quoted, with the escapes
//! `\n`, `\\`, `\"` and `\xNN`. Missing parents are made with mode 0755. A scene has sections, the
//! topmost first: `[upper]` at most once, then `[lower]` lines.
//!
//! ```text
//! dir      PATH                      file PATH "content"       sparse PATH SIZE OFFSET:TEXT...
//! symlink  PATH TARGET               hardlink PATH OTHER-PATH  char|block PATH MAJOR:MINOR
//! fifo     PATH                      socket PATH
//! whiteout PATH                      (character device 0:0)
//! opaque   PATH                      (a directory with trusted.overlay.opaque=y)
//! ```
//!
//! Keys: `mode=0755` `uid=N` `gid=N` `mtime=SECONDS[.NANOSECONDS]` `xattr:NAME=VALUE`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::Time;

/// What one line makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Dir,
    Opaque,
    File(Vec<u8>),
    Sparse { size: u64, data: Vec<(u64, Vec<u8>)> },
    Symlink(OsString),
    HardLink(PathBuf),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
    Whiteout,
}

/// The attributes that a line may set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntrySpec {
    pub(crate) path: PathBuf,
    pub(crate) what: What,
    pub(crate) attributes: Attributes,
}

/// One layer, in the order in which its entries are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LayerSpec {
    pub(crate) entries: Vec<EntrySpec>,
}

/// A stack of layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SceneSpec {
    pub(crate) upper: LayerSpec,
    /// Topmost first.
    pub(crate) lowers: Vec<LayerSpec>,
}

impl SceneSpec {
    /// Reads a scene; a mistake in the text stops the test.
    pub(crate) fn parse(text: &str) -> SceneSpec {
        let mut scene = SceneSpec::default();
        let mut in_upper = false;
        for line in text.lines() {
            match line.trim() {
                "" => {}
                comment if comment.starts_with('#') => {}
                "[upper]" => in_upper = true,
                "[lower]" => {
                    in_upper = false;
                    scene.lowers.push(LayerSpec::default());
                }
                entry if in_upper => scene.upper.entries.push(parse_entry(entry)),
                entry => {
                    let lower = scene.lowers.last_mut().expect("an entry follows a [lower] line");
                    lower.entries.push(parse_entry(entry));
                }
            }
        }
        scene
    }
}

fn parse_entry(line: &str) -> EntrySpec {
    let words = words(line);
    let (kind, path) = (text(&words[0]), PathBuf::from(os(&words[1])));
    let mut attributes = Attributes::default();
    let mut arguments = Vec::new();
    for word in &words[2..] {
        if !attribute(word, &mut attributes) {
            arguments.push(word.clone());
        }
    }
    let first = || arguments.first().unwrap_or_else(|| panic!("an argument is missing: {line}"));
    let what = match kind.as_str() {
        "dir" => What::Dir,
        "opaque" => What::Opaque,
        "file" => What::File(arguments.first().map(|w| w.bytes.clone()).unwrap_or_default()),
        "sparse" => What::Sparse {
            size: text(first()).parse().unwrap(),
            data: arguments[1..].iter().map(extent).collect(),
        },
        "symlink" => What::Symlink(os(first())),
        "hardlink" => What::HardLink(PathBuf::from(os(first()))),
        "char" => device(first(), What::Char),
        "block" => device(first(), What::Block),
        "fifo" => What::Fifo,
        "socket" => What::Socket,
        "whiteout" => What::Whiteout,
        _ => panic!("no such kind of entry: {line}"),
    };
    EntrySpec { path, what, attributes }
}

fn device(word: &Word, make: fn(u32, u32) -> What) -> What {
    let text = text(word);
    let (major, minor) = text.split_once(':').expect("MAJOR:MINOR");
    make(major.parse().unwrap(), minor.parse().unwrap())
}

fn extent(word: &Word) -> (u64, Vec<u8>) {
    let colon = word.bytes.iter().position(|b| *b == b':').expect("OFFSET:TEXT");
    let offset = std::str::from_utf8(&word.bytes[..colon]).unwrap().parse().unwrap();
    (offset, word.bytes[colon + 1..].to_vec())
}

/// Takes `word` where it is KEY=VALUE with a key of ours, outside quotes.
fn attribute(word: &Word, into: &mut Attributes) -> bool {
    let Some(equals) = word.bytes.iter().position(|b| *b == b'=') else { return false };
    if word.quoted_from.is_some_and(|quote| quote < equals) {
        return false;
    }
    let (key, value) = (&word.bytes[..equals], &word.bytes[equals + 1..]);
    let number = || std::str::from_utf8(value).unwrap();
    match key {
        b"mode" => into.mode = Some(u32::from_str_radix(number(), 8).unwrap()),
        b"uid" => into.uid = number().parse().unwrap(),
        b"gid" => into.gid = number().parse().unwrap(),
        b"mtime" => into.mtime = Some(Time::parse(number())),
        _ => match key.strip_prefix(b"xattr:") {
            Some(name) => into.xattrs.push((OsString::from_vec(name.to_vec()), value.to_vec())),
            None => return false,
        },
    }
    true
}

#[derive(Debug, Clone, Default)]
struct Word {
    bytes: Vec<u8>,
    /// Where in `bytes` the first quoted part begins.
    quoted_from: Option<usize>,
}

fn text(word: &Word) -> String {
    String::from_utf8(word.bytes.clone()).unwrap()
}

fn os(word: &Word) -> OsString {
    OsString::from_vec(word.bytes.clone())
}

fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quoted = false;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                quoted = !quoted;
                let word = word.get_or_insert_default();
                let here = word.bytes.len();
                word.quoted_from.get_or_insert(here);
            }
            b' ' | b'\t' if !quoted => words.extend(word.take()),
            b'\\' => word.get_or_insert_default().bytes.push(escape(&mut bytes)),
            _ => word.get_or_insert_default().bytes.push(byte),
        }
    }
    assert!(!quoted, "a quote is open: {line}");
    words.extend(word);
    assert!(words.len() >= 2, "KIND PATH: {line}");
    words
}

fn escape(bytes: &mut std::str::Bytes<'_>) -> u8 {
    match bytes.next().expect("something follows a backslash") {
        b'n' => b'\n',
        b'0' => 0,
        b'x' => {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
        }
        other => other,
    }
}
