//! Which files are programs and libraries: what is run and mapped, and replaced instead of written
//! in place.
//!
//! Mode and name alone do not tell: there are images in which everything is executable, and text
//! files named like libraries. So the content has the last word. It is looked at only where mode
//! or name give reason to, because that is done at each opening.

use std::os::unix::ffi::OsStrExt;

use super::node::Node;
use crate::sys::OwnedFd;
use crate::sys::file::read_at;

const EXECUTABLE: u32 = 0o111;
/// What an ELF file begins with: the magic number, eleven bytes that are of no interest here, and
/// its type in two bytes, in the order that the sixth byte tells.
const HEADER: usize = 18;
const MAGIC: &[u8] = b"\x7fELF";
const BIG_ENDIAN: u8 = 2;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;

/// Whether `file`, the open file of `node` with this mode, is a program or a shared library.
pub(super) fn is_program(node: &Node, file: &OwnedFd, mode: u32) -> bool {
    (mode & EXECUTABLE != 0 || is_named_like_a_library(node)) && is_elf(file)
}

fn is_named_like_a_library(node: &Node) -> bool {
    let state = node.state.lock();
    state.first_name().is_some_and(|alias| {
        let name = alias.name.as_bytes();
        name.ends_with(b".so") || name.windows(4).any(|part| part == b".so.")
    })
}

/// What cannot be read is none: it is served as any other file.
fn is_elf(file: &OwnedFd) -> bool {
    let mut header = [0; HEADER];
    match read_at(file, &mut header, 0) {
        Ok(HEADER) => is_elf_header(&header),
        Ok(_) | Err(_) => false,
    }
}

fn is_elf_header(header: &[u8; HEADER]) -> bool {
    let [.., first, second] = *header;
    let kind = match header.get(5) {
        Some(&BIG_ENDIAN) => u16::from_be_bytes([first, second]),
        _ => u16::from_le_bytes([first, second]),
    };
    header.starts_with(MAGIC) && (kind == ET_EXEC || kind == ET_DYN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(order: u8, kind: [u8; 2]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(MAGIC);
        header[5] = order;
        header[16..].copy_from_slice(&kind);
        header
    }

    #[test]
    fn programs_and_libraries_of_both_byte_orders_are_known() {
        for kind in [2, 3] {
            assert!(is_elf_header(&header(1, [kind, 0])));
            assert!(is_elf_header(&header(2, [0, kind])));
            assert!(!is_elf_header(&header(1, [0, kind])));
        }
        // Object files and core dumps are data.
        assert!(!is_elf_header(&header(1, [1, 0])));
        assert!(!is_elf_header(&header(1, [4, 0])));
        assert!(!is_elf_header(b"#!/bin/sh\nexit 0\n\n"));
    }
}
