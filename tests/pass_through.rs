//! Every method of the base is reached, with the very arguments and the very answer.
//!
//! The base here is `recorder`: each of its methods writes down what it was called with and answers a
//! number of its own.

use rusqlite::ffi;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, Once};

type File = *mut ffi::sqlite3_file;
type Vfs = *mut ffi::sqlite3_vfs;
type Call = Option<unsafe extern "C" fn()>;
/// As bindgen reads the header: the symbol as a function of xDlSym's own type.
type Symbol = Option<unsafe extern "C" fn(Vfs, *mut c_void, *const c_char)>;

static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Which VFS and which file the recorder was last called with.
static SELF: Mutex<(usize, usize)> = Mutex::new((0, 0));

/// One line: the method and its arguments after the first, which is the recorder's own.
macro_rules! recorder {
    ($($name:ident($this:ident: $type:ty $(, $argument:ident: $of:ty)*) $(-> $answer:ty = $value:expr)?;)*) => {
        mod record {
            use super::*;
            $(#[allow(non_snake_case)]
            pub unsafe extern "C" fn $name($this: $type $(, $argument: $of)*) $(-> $answer)? {
                let arguments: Vec<String> = vec![$(format!("{:?}", $argument)),*];
                CALLS.lock().unwrap().push(format!("{} {}", stringify!($name), arguments.join(" ")));
                noted(stringify!($type), $this as usize);
                $($value)?
            })*
        }
    };
}

fn noted(kind: &str, pointer: usize) {
    let mut this = SELF.lock().unwrap();
    match kind {
        "Vfs" => this.0 = pointer,
        _ => this.1 = pointer,
    }
}

recorder! {
    xRead(f: File, out: *mut c_void, size: c_int, at: i64) -> c_int = 1001;
    xWrite(f: File, data: *const c_void, size: c_int, at: i64) -> c_int = 1002;
    xTruncate(f: File, size: i64) -> c_int = 1003;
    xSync(f: File, flags: c_int) -> c_int = 1004;
    xFileSize(f: File, size: *mut i64) -> c_int = 1005;
    xLock(f: File, level: c_int) -> c_int = 1006;
    xUnlock(f: File, level: c_int) -> c_int = 1007;
    xCheckReservedLock(f: File, held: *mut c_int) -> c_int = 1008;
    xFileControl(f: File, op: c_int, argument: *mut c_void) -> c_int = 1009;
    xSectorSize(f: File) -> c_int = 1010;
    xDeviceCharacteristics(f: File) -> c_int = 1011;
    xShmMap(f: File, region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int = 1012;
    xShmLock(f: File, offset: c_int, count: c_int, flags: c_int) -> c_int = 1013;
    xShmBarrier(f: File);
    xShmUnmap(f: File, delete: c_int) -> c_int = 1014;
    xFetch(f: File, at: i64, size: c_int, out: *mut *mut c_void) -> c_int = 1015;
    xUnfetch(f: File, at: i64, page: *mut c_void) -> c_int = 1016;
    xClose(f: File) -> c_int = 1017;
    xOpen(v: Vfs, name: *const c_char, file: File, flags: c_int, out: *mut c_int) -> c_int = {
        // SAFETY: xOpen's file.
        unsafe { (*file).pMethods = &METHODS };
        ffi::SQLITE_OK
    };
    xDelete(v: Vfs, path: *const c_char, sync: c_int) -> c_int = 2001;
    xAccess(v: Vfs, path: *const c_char, flags: c_int, out: *mut c_int) -> c_int = 2002;
    xFullPathname(v: Vfs, path: *const c_char, size: c_int, out: *mut c_char) -> c_int = 512;
    xDlOpen(v: Vfs, path: *const c_char) -> *mut c_void = 2004 as *mut c_void;
    xDlError(v: Vfs, size: c_int, out: *mut c_char);
    xDlSym(v: Vfs, library: *mut c_void, symbol: *const c_char) -> Symbol = None;
    xDlClose(v: Vfs, library: *mut c_void);
    xRandomness(v: Vfs, size: c_int, out: *mut c_char) -> c_int = 2006;
    xSleep(v: Vfs, us: c_int) -> c_int = 2007;
    xCurrentTime(v: Vfs, day: *mut f64) -> c_int = 2008;
    xGetLastError(v: Vfs, size: c_int, out: *mut c_char) -> c_int = 2009;
    xCurrentTimeInt64(v: Vfs, ms: *mut i64) -> c_int = 2010;
    xSetSystemCall(v: Vfs, name: *const c_char, call: Call) -> c_int = 2011;
    xGetSystemCall(v: Vfs, name: *const c_char) -> Call = None;
    xNextSystemCall(v: Vfs, name: *const c_char) -> *const c_char = 2013 as *const c_char;
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(record::xClose),
    xRead: Some(record::xRead),
    xWrite: Some(record::xWrite),
    xTruncate: Some(record::xTruncate),
    xSync: Some(record::xSync),
    xFileSize: Some(record::xFileSize),
    xLock: Some(record::xLock),
    xUnlock: Some(record::xUnlock),
    xCheckReservedLock: Some(record::xCheckReservedLock),
    xFileControl: Some(record::xFileControl),
    xSectorSize: Some(record::xSectorSize),
    xDeviceCharacteristics: Some(record::xDeviceCharacteristics),
    xShmMap: Some(record::xShmMap),
    xShmLock: Some(record::xShmLock),
    xShmBarrier: Some(record::xShmBarrier),
    xShmUnmap: Some(record::xShmUnmap),
    xFetch: Some(record::xFetch),
    xUnfetch: Some(record::xUnfetch),
};

/// turnstile over `recorder`: (turnstile, recorder).
fn registered() -> (Vfs, Vfs) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let recorder = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 3,
            szOsFile: 64,
            mxPathname: 77,
            pNext: ptr::null_mut(),
            zName: c"recorder".as_ptr(),
            pAppData: ptr::null_mut(),
            xOpen: Some(record::xOpen),
            xDelete: Some(record::xDelete),
            xAccess: Some(record::xAccess),
            xFullPathname: Some(record::xFullPathname),
            xDlOpen: Some(record::xDlOpen),
            xDlError: Some(record::xDlError),
            xDlSym: Some(record::xDlSym),
            xDlClose: Some(record::xDlClose),
            xRandomness: Some(record::xRandomness),
            xSleep: Some(record::xSleep),
            xCurrentTime: Some(record::xCurrentTime),
            xGetLastError: Some(record::xGetLastError),
            xCurrentTimeInt64: Some(record::xCurrentTimeInt64),
            xSetSystemCall: Some(record::xSetSystemCall),
            xGetSystemCall: Some(record::xGetSystemCall),
            xNextSystemCall: Some(record::xNextSystemCall),
        }));
        // SAFETY: a complete VFS that stays.
        unsafe { assert_eq!(ffi::sqlite3_vfs_register(recorder, 0), ffi::SQLITE_OK) };
        turnstile::register(turnstile::Options::parse("base=recorder").unwrap()).unwrap();
    });
    // SAFETY: plain use of the C API.
    unsafe {
        (
            ffi::sqlite3_vfs_find(c"turnstile".as_ptr()),
            ffi::sqlite3_vfs_find(c"recorder".as_ptr()),
        )
    }
}

#[test]
fn arguments_and_answers() {
    let (vfs, recorder) = registered();
    // SAFETY: the recorder looks at none of the pointers, and neither may turnstile, but at the two
    // names that are real.
    unsafe {
        let v = *vfs;
        let (a, b) = (0xa0 as *mut c_char, 0xb0 as *mut c_char);
        let name = c"/database".as_ptr();
        let expect = |line: String| {
            assert_eq!(CALLS.lock().unwrap().drain(..).collect::<Vec<_>>(), [line]);
        };
        // The answer and the line that the recorder wrote.
        macro_rules! vfs {
            ($method:ident($($argument:expr),*), $answer:expr, $line:expr) => {
                assert_eq!(v.$method.unwrap()(vfs $(, $argument)*), $answer, stringify!($method));
                expect(format!("{} {}", stringify!($method), $line));
                assert_eq!(SELF.lock().unwrap().0, recorder as usize, "the base's own pointer");
            };
        }
        assert_eq!(v.mxPathname, 77);
        let path = format!("{name:?}");
        vfs!(xDelete(name, 1), 2001, format!("{path} 1"));
        vfs!(xAccess(name, 2, a.cast()), 2002, format!("{path} 2 {a:?}"));
        vfs!(xFullPathname(name, 3, a), 512, format!("{path} 3 {a:?}"));
        vfs!(xDlOpen(a), 2004 as *mut c_void, format!("{a:?}"));
        vfs!(xDlError(5, a), (), format!("5 {a:?}"));
        assert!(v.xDlSym.unwrap()(vfs, a.cast(), b).is_none());
        expect(format!("xDlSym {a:?} {b:?}"));
        vfs!(xDlClose(a.cast()), (), format!("{a:?}"));
        vfs!(xRandomness(6, a), 2006, format!("6 {a:?}"));
        vfs!(xSleep(7), 2007, "7");
        vfs!(xCurrentTime(a.cast()), 2008, format!("{a:?}"));
        vfs!(xGetLastError(8, a), 2009, format!("8 {a:?}"));
        vfs!(xCurrentTimeInt64(a.cast()), 2010, format!("{a:?}"));
        vfs!(xSetSystemCall(a, None), 2011, format!("{a:?} None"));
        assert!(v.xGetSystemCall.unwrap()(vfs, a).is_none());
        expect(format!("xGetSystemCall {a:?}"));
        vfs!(xNextSystemCall(a), 2013 as *const c_char, format!("{a:?}"));

        let mut room = vec![0_u64; v.szOsFile as usize / 8 + 1];
        let file: File = room.as_mut_ptr().cast();
        let flags = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_READWRITE;
        assert_eq!(
            v.xOpen.unwrap()(vfs, name, file, flags, a.cast()),
            ffi::SQLITE_OK
        );
        let lower = file.byte_add((v.szOsFile - (*recorder).szOsFile) as usize);
        expect(format!("xOpen {path} {lower:?} {flags} {a:?}"));
        let m = *(*file).pMethods;
        macro_rules! file {
            ($method:ident($($argument:expr),*), $answer:expr, $line:expr) => {
                assert_eq!(m.$method.unwrap()(file $(, $argument)*), $answer, stringify!($method));
                expect(format!("{} {}", stringify!($method), $line));
                assert_eq!(SELF.lock().unwrap().1, lower as usize, "the base's file, right behind ours");
            };
        }
        file!(xRead(a.cast(), 1, 2), 1001, format!("{a:?} 1 2"));
        file!(xWrite(a.cast(), 3, 4), 1002, format!("{a:?} 3 4"));
        file!(xTruncate(5), 1003, "5");
        file!(xSync(6), 1004, "6");
        file!(xFileSize(a.cast()), 1005, format!("{a:?}"));
        file!(xLock(7), 1006, "7");
        file!(xUnlock(8), 1007, "8");
        file!(xCheckReservedLock(a.cast()), 1008, format!("{a:?}"));
        // Those that turnstile looks at need what they promise.
        let ours = [ffi::SQLITE_FCNTL_VFSNAME, ffi::SQLITE_FCNTL_BUSYHANDLER];
        for op in (0..100).filter(|op| !ours.contains(op)) {
            file!(xFileControl(op, a.cast()), 1009, format!("{op} {a:?}"));
        }
        let mut pair = [ptr::null_mut::<c_void>(); 2];
        let argument = pair.as_mut_ptr().cast::<c_void>();
        let line = format!("{} {argument:?}", ffi::SQLITE_FCNTL_BUSYHANDLER);
        file!(
            xFileControl(ffi::SQLITE_FCNTL_BUSYHANDLER, argument),
            1009,
            line
        );
        let mut answer: *mut c_char = ptr::null_mut();
        let argument = (&raw mut answer).cast::<c_void>();
        file!(
            xFileControl(12, argument),
            ffi::SQLITE_OK,
            format!("12 {argument:?}")
        );
        ffi::sqlite3_free(answer.cast());
        file!(xSectorSize(), 1010, "");
        file!(xDeviceCharacteristics(), 1011, "");
        file!(xShmMap(1, 2, 3, a.cast()), 1012, format!("1 2 3 {a:?}"));
        file!(xShmLock(4, 5, 6), 1013, "4 5 6");
        file!(xShmBarrier(), (), "");
        file!(xShmUnmap(7), 1014, "7");
        file!(xFetch(8, 9, a.cast()), 1015, format!("8 9 {a:?}"));
        file!(xUnfetch(10, a.cast()), 1016, format!("10 {a:?}"));
        file!(xClose(), 1017, "");
    }
}
