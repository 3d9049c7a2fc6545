//! Memory that may be refused: SQLite's users are promised `SQLITE_NOMEM`, where Rust would abort.

use std::alloc::{Layout, alloc};

/// `Box::new` that answers `None` when memory is out.
pub fn try_box<T>(value: T) -> Option<Box<T>> {
    const { assert!(size_of::<T>() > 0) };
    // SAFETY: the layout's size is not zero; the memory is T's, from the allocator of Box, and
    // written before it is a Box.
    unsafe {
        let place = alloc(Layout::new::<T>()).cast::<T>();
        if place.is_null() {
            return None;
        }
        place.write(value);
        Some(Box::from_raw(place))
    }
}
