//! Acting as another user for one call.

#![expect(unsafe_code, reason = "setfsuid and setfsgid have no safe wrapper")]

use std::marker::PhantomData;

/// While it lives, files that this thread makes belong to the user and group it was made for.
/// The thread loses its filesystem capabilities meanwhile unless that user is root.
#[derive(Debug)]
pub struct ActAs {
    uid: Option<u32>,
    gid: Option<u32>,
    // Credentials are the thread's: the guard must be dropped where it was made.
    thread_bound: PhantomData<*const ()>,
}

impl ActAs {
    /// Switches this thread to `uid` and `gid`; nothing is called where it already is them.
    pub fn user(uid: u32, gid: u32) -> ActAs {
        let (own_uid, own_gid) = own_ids();
        let mut guard = ActAs { uid: None, gid: None, thread_bound: PhantomData };
        if gid != own_gid {
            set_fsgid(gid);
            guard.gid = Some(own_gid);
        }
        if uid != own_uid {
            set_fsuid(uid);
            guard.uid = Some(own_uid);
        }
        guard
    }
}

impl Drop for ActAs {
    fn drop(&mut self) {
        if let Some(uid) = self.uid {
            set_fsuid(uid);
        }
        if let Some(gid) = self.gid {
            set_fsgid(gid);
        }
    }
}

/// The user and group that this process's files belong to.
pub fn own_ids() -> (u32, u32) {
    static OWN: std::sync::OnceLock<(u32, u32)> = std::sync::OnceLock::new();
    *OWN.get_or_init(|| {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        (uid.as_raw(), gid.as_raw())
    })
}

// The raw calls are made because they act on this thread alone. They report no failure: an id
// that is not permitted leaves the old one, and the owner is then set by chown (the caller
// compares the result).
fn set_fsuid(uid: u32) {
    // SAFETY: changes only this thread's credentials; no memory is involved.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
}

fn set_fsgid(gid: u32) {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
}
