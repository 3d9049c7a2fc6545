//! A process that works on the cluster: Debian's python3, told what to do line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const PYTHON: &str = "/usr/bin/python3";

/// Each line is an expression or a statement; the answer is its value, or the name of the error.
const SERVE: &str = r#"
import errno, fcntl, mmap, os, sqlite3, struct, sys, time

F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38
R, W, U = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK

def flock(cmd, fd, kind, first, length):
    return fcntl.fcntl(fd, cmd, struct.pack('hhqqi4x', kind, 0, first, length, 0))

def lock(fd, kind, first=0, length=1): flock(fcntl.F_SETLK, fd, kind, first, length)
def wait(fd, kind, first=0, length=1): flock(fcntl.F_SETLKW, fd, kind, first, length)
def ofd(fd, kind, first=0, length=1): flock(F_OFD_SETLK, fd, kind, first, length)
def holder(fd, kind, first=0, length=1):
    kind, _, first, length, pid = struct.unpack('hhqqi4x', flock(fcntl.F_GETLK, fd, kind, first, length))
    return None if kind == U else ('RWU'[kind], first, length, pid)

for line in sys.stdin:
    try:
        try:
            answer = eval(line)
        except SyntaxError:
            answer = exec(line)
    except OSError as e:
        answer = errno.errorcode[e.errno]
    except Exception as e:
        answer = f'{type(e).__name__}: {e}'
    print(answer, flush=True)
"#;

pub struct Guest {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Guest {
    /// Whether there is python3. If not, the test named `test` is to return.
    pub fn available(test: &str) -> bool {
        crate::support::has_program(test, PYTHON, "python3")
    }

    pub fn new() -> Guest {
        let mut child = Command::new(PYTHON)
            .args(["-c", SERVE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let (line, output) = channel();
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for answer in answers.lines().map_while(Result::ok) {
                let _ = line.send(answer);
            }
        });
        let input = child.stdin.take().expect("a pipe");
        Guest {
            child,
            input,
            output,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the guest listens");
    }

    /// The next answer, if it comes in that time.
    pub fn answer(&mut self, time: Duration) -> Option<String> {
        match self.output.recv_timeout(time) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the guest is gone"),
        }
    }

    /// Tells and waits for the answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        let answer = self.answer(Duration::from_secs(60));
        answer.unwrap_or_else(|| panic!("no answer to {line:?}"))
    }

    /// The same for what must go well and has no value.
    pub fn run(&mut self, line: &str) {
        assert_eq!(self.ask(line), "None", "{line}");
    }

    /// Kills it. Returns when it is dead, or when the kernel has not let go of it for 10 s.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let end = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill();
    }
}
