/*
** The function that SQLITE_EXTRA_INIT names: sqlite3_initialize() calls it last, so a program of
** SQLite's own finds turnstile registered before its first sqlite3_open(), and again after each
** sqlite3_shutdown() (which makes "unix" the default once more). TURNSTILE_EXTENSION is the path
** of the extension; without it the program is as SQLite ships it.
*/
#include <stdio.h>
#include <stdlib.h>
#include "sqlite3.h"

int turnstile_extra_init(const char *unused){
  const char *zExtension = getenv("TURNSTILE_EXTENSION");
  char *zErr = 0;
  sqlite3 *db = 0;
  int rc;
  (void)unused;
  if( zExtension==0 ) return SQLITE_OK;
  rc = sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE|SQLITE_OPEN_CREATE, "unix");
  if( rc==SQLITE_OK ) rc = sqlite3_enable_load_extension(db, 1);
  if( rc==SQLITE_OK ) rc = sqlite3_load_extension(db, zExtension, 0, &zErr);
  /* Some of the programs do not look at what sqlite3_initialize() returns: say it here. */
  if( rc!=SQLITE_OK ) fprintf(stderr, "%s: %s\n", zExtension, zErr ? zErr : sqlite3_errstr(rc));
  sqlite3_free(zErr);
  sqlite3_close(db);
  return rc;
}
