//! Mounting and, above all, unmounting.
//!
//! `mount(2)` is called here and not by fuser, which cannot say what kind of FUSE it is
//! (`fuse.glusterfs`), and does not abort: a process that still waits for an answer would wait for ever.

use super::node::Node;
use fuser::{BackgroundSession, Config, Notifier, Session, SessionACL};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[derive(Debug)]
pub struct Mounted {
    pub path: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    pub fn new(path: PathBuf, node: Node) -> io::Result<Mounted> {
        std::fs::create_dir(&path)?;
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let (source, kind) = (Some("cluster"), Some(node.mount.kind));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(source, &path, kind, flags, Some(options.as_str()))?;
        let mut mounted = Mounted {
            path,
            session: None,
        };
        let mut config = Config::default();
        config.n_threads = Some(4);
        let session = Session::from_fd(node, device.into(), SessionACL::All, config)?;
        mounted.session = Some(session.spawn()?);
        Ok(mounted)
    }

    /// Tells the kernel what it has to forget.
    pub fn notifier(&self) -> Notifier {
        let session = self.session.as_ref();
        session.expect("it is mounted").notifier()
    }
}

impl Drop for Mounted {
    /// Force ends every request that has no answer yet, and detach does not mind open files.
    fn drop(&mut self) {
        let flags = MntFlags::MNT_FORCE | MntFlags::MNT_DETACH;
        if let Err(e) = umount2(&self.path, flags) {
            eprintln!("umount {}: {e}", self.path.display());
        } else if let Some(session) = self.session.take() {
            let _ = session.join();
        }
    }
}

/// A process that unmounts when this one is gone without having done it, because it was killed, say.
///
/// It is needed for more than tidiness: a process that ends with one of its own FUSE files open
/// waits in the kernel for an answer that it can no longer give. It is then neither gone nor are its
/// other files closed; but it has no memory any more, and so no command line.
#[derive(Debug)]
pub struct Watchdog(Child);

const WATCH: &str = r#"
trap '' INT TERM HUP
while line=; read -r line <"/proc/$0/cmdline"; [ -n "$line" ]; do sleep 1; done
umount -l -f "$@"
"#;

impl Watchdog {
    pub fn new<'a>(mounts: impl Iterator<Item = &'a Path>) -> io::Result<Watchdog> {
        let child = Command::new("sh")
            .args(["-c", WATCH, &std::process::id().to_string()])
            .args(mounts)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Watchdog(child))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
