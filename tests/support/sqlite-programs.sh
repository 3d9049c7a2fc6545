#!/bin/sh
# Builds SQLite's own test programs out of Debian's sqlite3 source package:
#
#     tests/support/sqlite-programs.sh DIRECTORY
#
# leaves in DIRECTORY the programs mptest, speedtest1 and threadtest3, each of which loads the
# extension named in TURNSTILE_EXTENSION (extra_init.c), and mptest's scripts. It works once and
# finds its work done later. Exit status 69: something is missing, which the last line names
# ("sqlite-programs.sh: needs WHAT; REMEDY").
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 64; }
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
mkdir -p "$1"
cd "$1"
out=$(pwd)

missing() {
    echo "sqlite-programs.sh: needs $1; $2" >&2
    exit 69
}
needs() {
    command -v "$1" >/dev/null || missing "$1" "apt-get install $2"
}

# Two test runs may build into one directory; the second finds the work of the first.
needs flock util-linux
exec 9>lock
flock 9

# What was built belongs to these two files as they were, and to nothing else.
recipe=$(cat "$here/sqlite-programs.sh" "$here/extra_init.c" | cksum)
[ "$(cat recipe 2>/dev/null || :)" != "$recipe" ] || exit 0
rm -f recipe

needs apt-get apt
needs gcc gcc
needs make make
needs tclsh tcl
needs tar tar
needs xz xz-utils

# --- the source ---------------------------------------------------------------------------------
# deb-src for this one command: the archive that the machine's packages come from, in an apt of our
# own (list, indexes and cache under $apt), so that /etc/apt stays as it is and nobody need be root.
apt=$out/apt
rm -rf "$apt" source
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" source
sources() {
    apt-get "$@" indextargets --format 'deb-src $(REPO_URI) $(CODENAME) $(COMPONENT)' \
        'Origin: Debian' 'Created-By: Packages' | sort -u >"$apt/sources.list"
}
private_apt() {
    apt-get -q -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" \
        -o APT::Sandbox::User= -o Acquire::Retries=3 "$@"
}
sources
# A machine whose own indexes were never fetched (or thrown away, as images do) cannot say yet.
if [ ! -s "$apt/sources.list" ]; then
    private_apt update >apt.log 2>&1 || :
    sources -o Dir::State::lists="$apt/lists"
fi
[ -s "$apt/sources.list" ] ||
    missing 'a Debian archive that apt knows' 'run it on a Debian machine'
fetch() {
    set -- -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=-
    private_apt "$@" update && cd source && private_apt "$@" source --tar-only sqlite3
}
(fetch) >apt.log 2>&1 || {
    cat apt.log >&2
    missing 'the source package of sqlite3' 'see above why apt could not fetch it'
}
rm -rf "$apt"
mkdir source/tree
tar -xJf source/sqlite3_*.orig.tar.xz -C source/tree --strip-components=1

# --- the programs -------------------------------------------------------------------------------
# One sqlite3.o for all: thread-safe for threadtest3, with R-Tree for that part of speedtest1.
build() {
    (cd source/tree && ./configure --disable-tcl --disable-readline && make sqlite3.c)
    set -- -O2 -g -Isource/tree -Isource/tree/src -DSQLITE_THREADSAFE=1 -DHAVE_USLEEP=1 \
        -DSQLITE_ENABLE_RTREE=1 -DSQLITE_EXTRA_INIT=turnstile_extra_init
    gcc "$@" -c source/tree/sqlite3.c -o source/sqlite3.o
    gcc "$@" -c "$here/extra_init.c" -o source/extra_init.o
    program() {
        name=$1
        shift
        gcc "$@" source/sqlite3.o source/extra_init.o -o "$name" -lpthread -ldl -lm
    }
    program mptest "$@" source/tree/mptest/mptest.c
    # mptest waits with a busy handler of its own. This one waits as nearly all programs do.
    sed 's/sqlite3_busy_handler(g.db, busyHandler, 0)/sqlite3_busy_timeout(g.db, DEFAULT_TIMEOUT)/' \
        source/tree/mptest/mptest.c >source/mptest-timeout.c
    grep -q 'sqlite3_busy_timeout(g.db, DEFAULT_TIMEOUT)' source/mptest-timeout.c
    program mptest-timeout "$@" source/mptest-timeout.c
    program speedtest1 "$@" source/tree/test/speedtest1.c
    program threadtest3 "$@" source/tree/test/threadtest3.c source/tree/src/test_multiplex.c
}
# Not "build || ...", under which set -e would let every step of it fail unseen.
trap 'status=$?; [ $status -eq 0 ] || cat build.log >&2; exit $status' EXIT
build >build.log 2>&1
trap - EXIT

# mptest hands --vfs down to the clients that it starts, but not --journalmode, so that all but one
# of its six processes would keep a DELETE journal. It starts them under its own argv[0]: run under
# the name mptest-client, they get the mode as well.
cat >mptest-client <<'CLIENT'
#!/bin/sh
exec "$MPTEST" "$@" --journalmode "$MPTEST_JOURNALMODE" --timeout 10000
CLIENT
chmod +x mptest-client

# --- mptest's scripts ---------------------------------------------------------------------------
rm -rf scripts
mkdir -p scripts/rollback scripts/wal
cp source/tree/mptest/*test scripts/rollback
# config01.test begins with a guard that no shim passes (its VFS is called "turnstile/unix"), and
# what does not pass is skipped to the end without a word: 0 errors out of 0 tests.
sed -i "s/^--if vfsname() GLOB 'unix'/--if vfsname() GLOB '*unix'/" scripts/rollback/config01.test
grep -q "^--if vfsname() GLOB '\*unix'" scripts/rollback/config01.test
# In WAL, SQLite has one journal mode for all connections and never changes the page size, so two
# of the scripts cannot pass as they are: their tasks keep the mode, and the size stays the default.
cp scripts/rollback/* scripts/wal
sed -i -e '/PRAGMA journal_mode=/d' -E \
    -e 's/^--match ([0-9]+)( \1){4}$/--match 4096 4096 4096 4096 4096/' scripts/wal/config0*.test

rm -rf source
echo "$recipe" >recipe
