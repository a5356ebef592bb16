//! The locks and atomic numbers of nodes, handles, listings and descriptors.
//!
//! With the feature `models`, which only the tests in `models` are built with, they are shuttle's: then
//! every taking of a lock and every atomic access is a place where another thread may go on, and
//! the test walks through the orders in which threads can meet.

#[cfg(not(feature = "models"))]
pub use std::sync::atomic;
#[cfg(not(feature = "models"))]
pub use std::thread::yield_now;

#[cfg(not(feature = "models"))]
pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};

#[cfg(feature = "models")]
pub use modelled::*;

/// shuttle's locks with the interface of `parking_lot`'s.
#[cfg(feature = "models")]
mod modelled {
    use std::sync::PoisonError;

    use std::ops::{Deref, DerefMut};

    use shuttle::current::{TaskId, me};
    pub use shuttle::sync::{RwLockWriteGuard, atomic};
    pub use shuttle::thread::yield_now;

    /// See `parking_lot::Mutex`.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// See `parking_lot::Mutex::new`.
        pub fn new(value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        /// See `parking_lot::Mutex::lock`.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }

        /// See `parking_lot::Mutex::try_lock`.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok().map(|guard| MutexGuard(Some(guard)))
        }
    }

    /// See `parking_lot::MutexGuard`. Another thread may go on right after it, too: what follows
    /// need not touch anything that shuttle sees.
    #[derive(Debug)]
    pub struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

    #[expect(clippy::expect_used, reason = "it is there until it is dropped")]
    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("held")
        }
    }

    #[expect(clippy::expect_used, reason = "it is there until it is dropped")]
    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("held")
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            drop(self.0.take());
            if !std::thread::panicking() {
                atomic::AtomicBool::new(false).load(atomic::Ordering::Relaxed);
            }
        }
    }

    /// See `parking_lot::RwLock`. Who reads already and reads again without saying so fails the
    /// model: with a writer in between both would wait for ever.
    #[derive(Debug, Default)]
    pub struct RwLock<T> {
        lock: shuttle::sync::RwLock<T>,
        readers: std::sync::Mutex<Vec<TaskId>>,
    }

    /// See `parking_lot::RwLockReadGuard`.
    #[derive(Debug)]
    pub struct RwLockReadGuard<'a, T> {
        value: shuttle::sync::RwLockReadGuard<'a, T>,
        readers: &'a std::sync::Mutex<Vec<TaskId>>,
    }

    impl<T> RwLock<T> {
        /// See `parking_lot::RwLock::new`.
        pub fn new(value: T) -> RwLock<T> {
            RwLock { lock: shuttle::sync::RwLock::new(value), readers: std::sync::Mutex::default() }
        }

        /// See `parking_lot::RwLock::read`.
        pub fn read(&self) -> RwLockReadGuard<'_, T> {
            let value = self.lock.read().unwrap_or_else(PoisonError::into_inner);
            all(&self.readers).push(me());
            RwLockReadGuard { value, readers: &self.readers }
        }

        /// See `parking_lot::RwLock::read_recursive`. Nothing where this thread reads already.
        pub fn read_recursive(&self) -> Option<RwLockReadGuard<'_, T>> {
            let reads = all(&self.readers).contains(&me());
            (!reads).then(|| self.read())
        }

        /// See `parking_lot::RwLock::write`.
        pub fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.lock.write().unwrap_or_else(PoisonError::into_inner)
        }
    }

    fn all(readers: &std::sync::Mutex<Vec<TaskId>>) -> std::sync::MutexGuard<'_, Vec<TaskId>> {
        readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    impl<T> Deref for RwLockReadGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.value
        }
    }

    impl<T> Drop for RwLockReadGuard<'_, T> {
        fn drop(&mut self) {
            all(self.readers).retain(|reader| *reader != me());
        }
    }
}
