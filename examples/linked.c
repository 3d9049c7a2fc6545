/*
** The third door: a C program that links SQLite and libturnstile.a.
**
**     cargo rustc --release --lib --no-default-features --crate-type staticlib
**     cc -Ic examples/linked.c target/release/libturnstile.a -lsqlite3 -lpthread -ldl -lm -o linked
**     ./linked state.db
*/
#include <sqlite3.h>
#include <stdio.h>
#include "turnstile.h"

int main(int argc, char **argv){
  sqlite3 *db = 0;
  int rc = turnstile_register("quantum_us=500");
  if( argc!=2 || rc!=SQLITE_OK ){
    fprintf(stderr, argc!=2 ? "usage: linked DATABASE\n" : "turnstile: %s\n", sqlite3_errstr(rc));
    return 1;
  }
  rc = sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "turnstile");
  if( rc==SQLITE_OK ) rc = sqlite3_exec(db,
    "CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY, what TEXT);"
    "INSERT INTO event(what) VALUES('from C');", 0, 0, 0);
  printf("%s: %s\n", sqlite3_vfs_find("turnstile")->zName, sqlite3_errmsg(db));
  sqlite3_close(db);
  return rc;
}
