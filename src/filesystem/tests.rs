//! What is said of mounts as they are in the field.

use super::rows::ROWS;
use super::table::Row;
use super::*;

const EXT4: u32 = 0xef53;
const FUSE: u32 = 0x6573_5546;
const OVERLAY: u32 = 0x794c_7630;

/// Whether anybody but this machine can be meant by `magic`.
pub fn is_foreign(magic: u32) -> bool {
    table::by_magic(magic).is_none_or(|row| row.home == Home::Network)
}

/// What becomes of a database in /d, if that is mounted like this.
fn judged(magic: u32, mounted: &str, upper: Option<(Kind, &str)>) -> Ground {
    let text = format!(
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
         60 27 0:58 / /d rw,nosuid,nodev,relatime shared:604 - {mounted}\n"
    );
    let sought = Sought {
        path: b"/d/a.db",
        device: Some((0, 58)),
        magic,
    };
    let mount = mountinfo::find(text.as_bytes(), &sought);
    assert!(mount.is_some(), "{mounted}");
    judge(magic, mount, |directory| {
        assert!(directory.to_bytes().starts_with(b"/"));
        upper.map(|(kind, name)| (kind, Text::new(name)))
    })
}

/// What is said must be what is meant: the sentence, from which kind and locks follow.
#[track_caller]
fn assert_says(ground: &Ground, sentence: &str) {
    assert_eq!(ground.to_string(), sentence);
    let local = sentence.ends_with("this machine's own");
    assert_eq!(ground.kind == Kind::Local, local, "{sentence}");
    let node_local = sentence.contains("locks hold on this node only");
    assert_eq!(matches!(ground.locks, Locks::NodeLocal(_)), node_local);
    let missing = sentence.contains("locks do not work");
    assert_eq!(matches!(ground.locks, Locks::Missing(_)), missing);
}

/// The magic number, the end of the line in mountinfo, and what is said of it behind the name.
const FIELD: &str = "
0bd00bd0 lustre 10.0.0.1@tcp:/scratch rw,flock,user_xattr,lazystatfs
    can be shared with other machines
0bd00bd0 lustre 10.0.0.1@o2ib:10.0.0.2@o2ib:/scratch rw,checksum,flock,nouser_xattr,lruresize,lazystatfs,nouser_fid2path,verbose,noencrypt
    can be shared with other machines
0bd00bd0 lustre 10.0.0.1@tcp:/scratch rw,localflock,lazystatfs
    is mounted with localflock: locks hold on this node only; remount with -o flock
0bd00bd0 lustre 10.0.0.1@tcp:/scratch rw,checksum,localflock,nouser_xattr,lruresize
    is mounted with localflock: locks hold on this node only; remount with -o flock
0bd00bd0 lustre 10.0.0.1@tcp:/scratch rw,checksum,noflock,nouser_xattr,lruresize
    is mounted with noflock: locks do not work; remount with -o flock
0bd00bd0 lustre 10.0.0.1@tcp:/scratch rw,lazystatfs
    is mounted without flock: locks do not work; remount with -o flock
0bd00bd0 lustre 10.0.0.1@tcp:/scratch rw
    is mounted without flock: locks do not work; remount with -o flock
00006969 nfs nas:/d rw,vers=3,rsize=131072,hard,proto=tcp,timeo=600,retrans=2,sec=sys,mountaddr=192.168.56.10,mountvers=3,mountport=20048,mountproto=udp,local_lock=none,addr=192.168.56.10
    can be shared with other machines
00006969 nfs nas:/d rw,vers=3,rsize=131072,hard,nolock,proto=tcp,timeo=600,retrans=2,sec=sys,mountaddr=192.168.56.10,mountvers=3,mountproto=udp,local_lock=all,addr=192.168.56.10
    is mounted with nolock: locks hold on this node only; remount without it
00006969 nfs nas:/d rw,vers=3,hard,proto=tcp,sec=sys,local_lock=posix,addr=192.168.56.10
    is mounted with local_lock=posix: locks hold on this node only; remount with local_lock=none
00006969 nfs nas:/d rw,vers=3,hard,proto=tcp,sec=sys,local_lock=all,addr=192.168.56.10
    is mounted with local_lock=all: locks hold on this node only; remount with local_lock=none
00006969 nfs nas:/d rw,vers=3,hard,proto=tcp,sec=sys,local_lock=flock,addr=192.168.56.10
    can be shared with other machines
00006969 nfs4 127.0.0.1:/foo rw,vers=4.2,rsize=1048576,hard,proto=tcp,timeo=600,retrans=2,sec=sys,clientaddr=127.0.0.1,local_lock=none,addr=127.0.0.1
    can be shared with other machines
47504653 gpfs gpfs0 rw
    can be shared with other machines
18031977 wekafs 10.108.97.126/default rw,writecache,inode_bits=auto,readahead_kb=32768,dentry_max_age_positive=1000,container_name=client
    can be shared with other machines
00c36400 ceph 10.0.0.1:6789,10.0.0.2:6789:/ rw,name=admin,secret=<hidden>,acl,mon_addr=10.0.0.1:6789
    can be shared with other machines
fe534d42 cifs //nas/d rw,vers=3.1.1,cache=strict,username=u,uid=0,noforceuid,addr=10.0.0.5,file_mode=0755,soft,nounix,serverino,mapposix
    can be shared with other machines
ff534d42 cifs //nas/d rw,vers=1.0,cache=strict,unix,posixpaths,serverino,mapposix,nobrl,acl
    is mounted with nobrl: locks hold on this node only; remount without it
19830326 beegfs beegfs_nodev rw,cfgFile=/nonexistent/beegfs-client.conf
    is not known to set tuneUseGlobalFileLocks: locks hold on this node only; set it to true on all nodes, and remount
01021997 9p share rw,sync,dirsync,access=client,trans=virtio
    can be shared with other machines
01021997 9p C:\\134 rw,noatime,aname=drvfs;path=C:\\134;uid=1000;gid=1000,mmap,access=client,msize=65536,trans=fd,rfd=5,wfd=5
    can be shared with other machines
0000ef53 9p share rw,access=client,trans=virtio
    can be shared with other machines
0000001a 9p share rw,access=client,trans=virtio,version=9p2000.u
    is mounted with version=9p2000.u: locks do not work; remount with version=9p2000.L
5346414f afs AFS rw
    is mounted without flock=write: locks hold on this node only; remount with it, or use the database on one machine only
6b414653 afs #grand.central.org:root.cell. rw,flock=write
    can be shared with other machines
20030528 pvfs2 tcp://server:3334/orangefs rw
    is mounted without local_lock: locks do not work; remount with it, and use the database on one machine only
20030528 pvfs2 tcp://server:3334/orangefs rw,local_lock
    is mounted with local_lock: locks hold on this node only; use the database on one machine only
aad7aaea panfs panfs://10.0.0.7/home rw
    can be shared with other machines
7461636f ocfs2 /dev/sdb rw,_netdev,heartbeat=local,nointr,data=ordered,errors=remount-ro,atime_quantum=60
    runs on the cluster stack o2cb: locks hold on this node only; use the stack pcmk
7461636f ocfs2 /dev/sdb rw,heartbeat=none,nointr,data=ordered,localflocks,,cluster_stack=pcmk
    is mounted with localflocks: locks hold on this node only; remount without it
7461636f ocfs2 /dev/sdb rw,heartbeat=none,nointr,data=ordered,cluster_stack=pcmk
    can be shared with other machines
01161970 gfs2 /dev/vg/lv rw,localflocks
    is mounted with localflocks: locks hold on this node only; remount without it, with lockproto=lock_dlm
786f4256 vboxsf share rw,iocharset=utf8
    passes no locks to the host: locks hold on this node only; use the database on one machine only
65735546 virtiofs share rw
    passes no locks to the host by default: locks hold on this node only; use the database on one machine only
65735546 fuse.glusterfs server:/volume rw,user_id=0,group_id=0,default_permissions,allow_other,max_read=131072
    can be shared with other machines
65735546 fuse.sshfs u@host:/d rw,user_id=1000,group_id=1000
    passes no locks to the server: locks hold on this node only; use the database on one machine only
65735546 fuse.s3fs s3fs rw,user_id=0,group_id=0,allow_other
    passes no locks to the store: locks hold on this node only; use the database on one machine only
65735546 fuse.rclone drive: rw,nosuid,nodev,user_id=0,group_id=0,allow_other
    passes no locks to the store: locks hold on this node only; use the database on one machine only
65735546 fuse.portal portal rw,nosuid,nodev,user_id=1000,group_id=1000
    does not tell programs' locks apart: locks do not work; use the database elsewhere
65735546 fuse.juicefs JuiceFS:vol rw,user_id=0,group_id=0
    can be shared with other machines
65735546 fuse.mfs mfsmaster:9421 rw,user_id=0,group_id=0,allow_other
    can be shared with other machines
65735546 fuse.mergerfs 1:2 rw,user_id=0,group_id=0,default_permissions,allow_other
    can be shared with other machines
65735546 fuse x rw,user_id=0,group_id=0
    can be shared with other machines
65735546 fuseblk /dev/sdb1 rw,user_id=0,group_id=0,allow_other,blksize=4096
    is this machine's own
01021994 tmpfs tmpfs rw,size=1024k
    is this machine's own
9123683e btrfs /dev/sdb1 rw,ssd,space_cache,subvolid=5,subvol=/
    is this machine's own
0000f15f ecryptfs /home/.ecryptfs/u/.Private rw,ecryptfs_sig=0123456789abcdef
    can be shared with other machines
13579bdf newfs x rw,nolock,localflock
    can be shared with other machines
0000ef53 newfs x rw
    can be shared with other machines
";

#[test]
fn mounts_as_they_are_in_the_field() {
    let mut lines = FIELD.lines().filter(|line| !line.is_empty());
    while let (Some(mount), Some(says)) = (lines.next(), lines.next()) {
        let (magic, mounted) = mount.split_once(' ').unwrap();
        let magic = u32::from_str_radix(magic, 16).unwrap();
        let name = mounted.split(' ').next().unwrap();
        let sentence = format!("/d ({name}) {}", says.trim_start());
        assert_says(&judged(magic, mounted, None), &sentence);
    }
}

#[test]
fn an_overlay_is_as_its_upper_directory() {
    let docker = "overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/var/lib/docker/x/diff,workdir=/w";
    let relative = "overlay overlay rw,lowerdir=a,upperdir=b,workdir=c";
    let nfs = Some((Kind::Network, "nfs4"));
    let on_nfs = judged(OVERLAY, docker, nfs);
    assert_says(
        &on_nfs,
        "/d (overlay on nfs4) can be shared with other machines",
    );
    for (mounted, upper) in [
        (docker, Some((Kind::Local, "ext4"))),
        // In a container.
        (docker, None),
        ("overlay overlay ro,lowerdir=/a:/b", nfs),
        // It means something else here than where it was mounted.
        (relative, nfs),
        ("overlay overlay rw,upperdir=", nfs),
    ] {
        let ground = judged(OVERLAY, mounted, upper);
        assert_says(&ground, "/d (overlay) is this machine's own");
    }
}

#[test]
fn without_proc_the_magic_number_decides() {
    for (magic, says) in [
        (0x0bd0_0bd0, "lustre) can be shared with other machines"),
        (FUSE, "fuse) can be shared with other machines"),
        (0x5346_414f, "afs) can be shared with other machines"),
        (EXT4, "ext2/ext3/ext4) is this machine's own"),
        (OVERLAY, "overlay) is this machine's own"),
        (0xabc, "type 0x00000abc) can be shared with other machines"),
    ] {
        let ground = judge(magic, None, |_| unreachable!());
        assert_says(&ground, &format!("the file system ({says}"));
    }
}

/// `renderLogMsg` in SQLite has 209 bytes; whoever logs it needs some for himself.
#[test]
fn every_sentence_fits_in_a_line_of_the_log() {
    let check = |locks, name: &str| {
        let ground = Ground {
            is_sure: true,
            kind: Kind::Network,
            locks,
            name: Text::new(name),
            mount_point: Some(Text::new(format!("/{}é/mount", "d".repeat(100)))),
        };
        let sentence = ground.to_string();
        assert!(sentence.len() < 170, "{}: {sentence}", sentence.len());
        let point = format!("...{}é/mount (", "d".repeat(32));
        assert!(sentence.starts_with(&point), "{sentence}");
        if let Locks::NodeLocal(flaw) | Locks::Missing(flaw) = locks {
            assert!(sentence.contains(flaw.because) && sentence.ends_with(flaw.remedy));
        }
    };
    for Row { types, rules, .. } in ROWS {
        for rule in *rules {
            types.iter().for_each(|name| check(rule.locks, name));
        }
    }
    // The longest type that is kept.
    check(Locks::Shared, &format!("overlay on {}", "f".repeat(64)));
}

#[test]
fn what_is_only_assumed_is_asked_again() {
    let line = "overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w";
    let found = judged(OVERLAY, line, Some((Kind::Local, "ext4")));
    let on_network = judged(OVERLAY, line, Some((Kind::Network, "nfs4")));
    let without_proc = judge(OVERLAY, None, |_| None);
    assert_eq!(without_proc.kind, Kind::Local);
    let memorable = [&found, &on_network, &without_proc].map(known::is_memorable);
    assert_eq!(memorable, [true, false, false]);
}
