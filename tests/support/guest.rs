//! A second SQLite in the process, opened by `dlopen` and used through its C API.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

type Db = *mut c_void;

pub struct Sqlite {
    open: unsafe extern "C" fn(*const c_char, *mut Db, c_int, *const c_char) -> c_int,
    close: unsafe extern "C" fn(Db) -> c_int,
    exec: unsafe extern "C" fn(
        Db,
        *const c_char,
        *const c_void,
        *mut c_void,
        *mut *mut c_char,
    ) -> c_int,
    enable: unsafe extern "C" fn(Db, c_int) -> c_int,
    load: unsafe extern "C" fn(Db, *const c_char, *const c_char, *mut *mut c_char) -> c_int,
}

impl Sqlite {
    /// Opens the library at `path`. It stays open.
    pub fn open(path: &str) -> Sqlite {
        // SAFETY: the library is SQLite's, and the types are those of its header.
        unsafe {
            let library = Box::leak(Box::new(libloading::Library::new(path).unwrap()));
            Sqlite {
                open: *library.get(c"sqlite3_open_v2").unwrap(),
                close: *library.get(c"sqlite3_close").unwrap(),
                exec: *library.get(c"sqlite3_exec").unwrap(),
                enable: *library.get(c"sqlite3_enable_load_extension").unwrap(),
                load: *library.get(c"sqlite3_load_extension").unwrap(),
            }
        }
    }

    fn with<T>(&self, uri: &str, run: impl FnOnce(Db) -> T) -> T {
        const READWRITE_CREATE_URI: c_int = 0x2 | 0x4 | 0x40;
        let uri = CString::new(uri).unwrap();
        let mut db = ptr::null_mut();
        // SAFETY: plain use of the C API.
        unsafe {
            let code = (self.open)(uri.as_ptr(), &mut db, READWRITE_CREATE_URI, ptr::null());
            assert_eq!(code, 0, "open {uri:?}");
            let result = run(db);
            assert_eq!((self.close)(db), 0);
            result
        }
    }

    /// Loads an extension.
    pub fn load(&self, extension: &Path) {
        let file = CString::new(extension.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: plain use of the C API.
        self.with(":memory:", |db| unsafe {
            (self.enable)(db, 1);
            let code = (self.load)(db, file.as_ptr(), ptr::null(), ptr::null_mut());
            assert_eq!(code, 0, "load {file:?}");
        });
    }

    /// Runs `sql` on a connection of its own.
    pub fn exec(&self, uri: &str, sql: &str) {
        let sql = CString::new(sql).unwrap();
        // SAFETY: plain use of the C API.
        self.with(uri, |db| unsafe {
            let none = ptr::null_mut();
            let code = (self.exec)(db, sql.as_ptr(), ptr::null(), none, ptr::null_mut());
            assert_eq!(code, 0, "{sql:?}");
        });
    }
}
