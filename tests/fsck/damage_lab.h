/* SPDX-License-Identifier: MPL-2.0 */
/*
 * damage_lab.h - a small disk in files, and hands to change any byte of it; for damage.c.
 *
 * Bytes    flip, zero, copy_blocks, copy_file: what an attacker or a bad medium can do.
 * Words    change_journal, change_wal, change_table read, change and seal anew with the key: what only a faulty
 *          program can do.
 * Errors   end the program with status 99 and a line that says what.
 */
#ifndef MLS_TEST_DAMAGE_LAB_H
#define MLS_TEST_DAMAGE_LAB_H

#include <sys/types.h>

#include "2-edit/edit_group.h"
#include "4-lsm/sst_block.h"
#include "check/inspect.h"

#define LAB_DISK_BLOCKS 4096u
#define LAB_MEMTABLE_RECORDS 256u

extern const struct mls_secret lab_secret;

struct lab {
	char image[512], store_path[512];
	struct mls_block_dev *dev;
	struct mls_trusted_store *store;
	struct mls_inspect *x;		/* of the last look */
};

void lab_must(int err, const char *what);
void lab_require(bool condition, const char *what);

/* ---- The disk ---- */

void lab_open(struct lab *l, unsigned flags);
void lab_close(struct lab *l);
void lab_look(struct lab *l);
struct mls_disk *lab_open_disk(struct lab *l);		/* l->x is NULL then */
void lab_write_lba(struct mls_disk *disk, uint64_t lba, unsigned version);
void lab_write_range(struct mls_disk *disk, uint64_t from, uint64_t upto, unsigned version);
/* Tables in two levels at least, a WAL of several groups, segments of old and new. */
void lab_make_base(struct lab *l);

/* ---- Bytes ---- */

void lab_flip(struct lab *l, uint64_t hba, unsigned byte);
void lab_zero(struct lab *l, uint64_t hba, uint64_t nr_blocks);
void lab_copy_blocks(struct lab *l, uint64_t from, uint64_t to, uint64_t nr_blocks);
void lab_copy_file(const char *from, const char *to);
void lab_flip_in_file(const char *path, off_t at, uint8_t mask);

/* ---- Things to damage ---- */

struct mls_inspect_log *lab_some_log(struct lab *l);	/* of the oldest table */
uint64_t lab_log_block(struct lab *l, const struct mls_inspect_log *log, uint64_t pos);	/* its HBA */
uint64_t lab_free_run(struct lab *l);
struct mls_index_rec lab_live_rec(struct lab *l, bool of_table, unsigned skip);
uint64_t lab_live_run(struct lab *l);

/* ---- Sealed anew ---- */

/* Changes or drops (true) the edit in *bytes; may add others. At the end it's called with owner MLS_NR_OWNERS. */
typedef bool lab_edit_fn(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
			 size_t bytes, void *arg);
void lab_change_journal(struct lab *l, lab_edit_fn *fn, void *arg);
bool lab_is_create(enum mls_edit_owner_id owner, const uint8_t *edit, uint64_t id);

/* The groups as they stand in l->x; the trusted store follows. */
void lab_change_wal(struct lab *l);
struct mls_index_rec *lab_wal_rec(struct lab *l, size_t at);	/* of the last group that has so many */

void lab_change_table(struct lab *l, void (*fn)(struct mls_sst_block_disk *blocks));

#endif
