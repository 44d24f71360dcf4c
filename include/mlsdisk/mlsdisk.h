/* SPDX-License-Identifier: MPL-2.0 */
/*
 * mlsdisk.h - the public face of libmlsdisk: a secure virtual disk over untrusted blocks.
 *
 * Role     Create, open, read, write, sync, discard, close; plus the two contracts a caller may
 *          fill himself: struct mls_block_dev (the untrusted storage below) and struct
 *          mls_trusted_store (the small register outside the adversary's reach).
 * Shapes   Blocks are MLS_BLOCK_BYTES (4096). LBA: block index in the disk; HBA: block index on
 *          the device below. The disk itself is addressed in bytes, any offset and length.
 * Errors   0, or one negative enum mls_err. Results leave through pointers and are untouched on
 *          error unless stated otherwise.
 * Threads  Every function on a struct mls_disk may be called from any thread at any time, except
 *          mls_disk_close, which must be the last call.
 * Source   doc/design.md; doc/format.md; mlsdisk(7).
 */
#ifndef MLSDISK_H
#define MLSDISK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MLS_MUST_CHECK __attribute__((warn_unused_result))
#define MLS_API __attribute__((visibility("default")))

#define MLS_BLOCK_BYTES 4096u
#define MLS_UUID_BYTES 16u
#define MLS_TAG_BYTES 16u
#define MLS_NR_KEY_SLOTS 8u
#define MLS_PATH_DEFAULT_STORE_DIR "/var/lib/mlsdisk"

/* ---- Errors: few codes, each a different reaction ------------------------------------------ */

enum mls_err {
	MLS_OK = 0,
	MLS_EIO = -1,		/* the device below or the system failed */
	MLS_ENOMEM = -2,	/* no memory */
	MLS_ENOSPC = -3,	/* no space: nothing was changed; reads and discards go on */
	MLS_EINVAL = -4,	/* misuse: argument out of range; state unchanged */
	MLS_ENOENT = -5,	/* no such thing (a lookup that found nothing, the end of a chain) */
	MLS_EAUTH = -6,		/* a tag is wrong: bytes were changed */
	MLS_ESTALE = -7,	/* authentic but old, or of another disk: rollback or store mismatch */
	MLS_EFORMAT = -8,	/* not an MlsDisk, or a version or field that can't be */
	MLS_EKEY = -9,		/* no key slot opens with this secret */
	MLS_EBUSY = -10,	/* in use by another process */
	MLS_EEXIST = -11,	/* something is there already */
	MLS_EROFS = -12,	/* opened read-only */
	MLS_EABORTED = -13,	/* the transaction was aborted */
	MLS_EPOISONED = -14,	/* a flush or a commit failed: no writes until reopened */
};

/* One short English phrase for err; never NULL. */
MLS_API const char *mls_strerror(int err);

/* The exit status of the MlsDisk programs (0, 1 ... 6 of mlsdisk(7)) that belongs to err. */
MLS_API int mls_exit_status(int err);

/* ---- Log: the lowest function that knows the place says it, once --------------------------- */

enum mls_log_level { MLS_LOG_ERROR, MLS_LOG_WARNING, MLS_LOG_INFO, MLS_LOG_DEBUG };

typedef void mls_log_fn(void *arg, enum mls_log_level level, const char *message);

/* All messages go to fn (default: errors and warnings to stderr). Call before threads start. */
MLS_API void mls_set_logger(mls_log_fn *fn, void *arg);

/* ---- The untrusted storage below (layer 0) ------------------------------------------------- */

/* One transfer of whole blocks. data is aligned to MLS_BLOCK_BYTES. */
struct mls_io {
	uint64_t hba;
	uint32_t nr_blocks;
	int err;		/* out: this transfer's result */
	void *data;
};

struct mls_block_dev;

/*
 * Order    Writes reach the medium in any order, or torn, until flush() has returned 0.
 * Errors   MLS_EINVAL outside the device; MLS_EIO, MLS_ENOSPC from the host. After a failed
 *          flush nobody knows what is on the medium; the disk above stops writing.
 * Threads  All of them from any thread, any time, but destroy.
 */
struct mls_block_dev_ops {
	/* Do all nr transfers, in parallel where the device can, and wait for them. Each io's
	 * err is set; the first failure is returned. On error that io's data is undefined. */
	int (*read)(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr);
	int (*write)(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr);
	int (*flush)(struct mls_block_dev *dev);	/* 0: all completed writes are durable */
	/* These blocks aren't needed any more; content undefined after. May be NULL. */
	int (*discard)(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks);
	void (*destroy)(struct mls_block_dev *dev);	/* frees dev; doesn't flush */
	/* The device may have grown: *nr_blocks is what it has now, and what the other calls take from
	 * now on. A larger size is durable after the next flush. May be NULL: never grows. */
	int (*measure)(struct mls_block_dev *dev, uint64_t *nr_blocks);
	/* Get the space for these blocks from the host now, so that no write of them meets MLS_ENOSPC before
	 * they are discarded; what they hold stays. MLS_ENOSPC: the host has none. One that can't ask
	 * answers 0. May be NULL: the device has all its space. */
	int (*reserve)(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks);
};

struct mls_block_dev {
	const struct mls_block_dev_ops *ops;
	uint64_t nr_blocks;
};

enum {
	MLS_DEV_READ_ONLY = 1 << 0,
	MLS_DEV_CREATE = 1 << 1,	/* regular file: create it (mode 0600), sparse, size_bytes long */
	MLS_DEV_NO_DIRECT = 1 << 2,	/* don't try O_DIRECT */
	MLS_DEV_DISCARD = 1 << 3,	/* block device: pass discards on. (A file always gives space back.) */
};

/*
 * A regular file or Linux block device through io_uring and O_DIRECT. Takes an exclusive lock
 * (shared when read-only) that keeps a second opener out, also in another process.
 *
 * size_bytes  With MLS_DEV_CREATE: the file's new size if it is shorter. Else ignored.
 * Returns     0; MLS_EBUSY: locked; MLS_ENOENT: no such file; MLS_EIO.
 */
MLS_API MLS_MUST_CHECK int mls_block_dev_open(struct mls_block_dev **dev, const char *path,
					      unsigned flags, uint64_t size_bytes);

/* Blocks in memory, all zero; for tests and examples. */
MLS_API MLS_MUST_CHECK int mls_block_dev_mem_new(struct mls_block_dev **dev, uint64_t nr_blocks);

MLS_API void mls_block_dev_destroy(struct mls_block_dev *dev);	/* NULL is fine */

/* ---- The trusted store --------------------------------------------------------------------- */

/* What the register holds: which disk, its last sync, and the tag that ends the WAL there. */
struct mls_trust {
	uint8_t uuid[MLS_UUID_BYTES];
	uint64_t sync_id;
	uint8_t digest[MLS_TAG_BYTES];
};

struct mls_trusted_store;

/*
 * examples/custom_store.c is one, with what the disk expects of it.
 *
 * Threads  The disk calls one at a time.
 * Errors   read: MLS_ENOENT: holds nothing yet (or is lost); MLS_EAUTH: what it holds is damaged
 *          or sealed with another key; MLS_ESTALE: it belongs to another disk; MLS_EINVAL: it wants
 *          set_key first; MLS_EIO. advance: MLS_EIO (the caller can't know which value it holds
 *          now); MLS_ESTALE: the store refuses (it belongs to another disk, or isn't a store).
 */
struct mls_trusted_store_ops {
	/* Called once, before the others, with a 256-bit key derived from the disk's master key,
	 * for stores that authenticate what they keep. May be NULL. */
	int (*set_key)(struct mls_trusted_store *store, const uint8_t key[32]);
	int (*read)(struct mls_trusted_store *store, struct mls_trust *trust);
	/* Durable before it returns 0. */
	int (*advance)(struct mls_trusted_store *store, const struct mls_trust *trust);
	void (*destroy)(struct mls_trusted_store *store);
	/* For a store that keeps its value more than once: how many of the copies the last read, which
	 * returned 0, found damaged. An advance writes one of them anew. May be NULL. */
	unsigned (*nr_damaged)(struct mls_trusted_store *store);
};

struct mls_trusted_store {
	const struct mls_trusted_store_ops *ops;
};

/*
 * A store by URI: "file:PATH" (directories are created), "tpm2:INDEX" (if this build has it), "none",
 * or NULL for the default file named after uuid (mlsdisk(7)). For "none", *store becomes NULL: pass
 * that on.
 *
 * uuid     used for the default name and, in messages, to say whose store it is.
 * Returns  0; MLS_EINVAL: unknown URI; MLS_EIO; MLS_ENOMEM; MLS_EBUSY: locked by another process;
 *          MLS_ESTALE: it belongs to another disk, or isn't a store.
 */
MLS_API MLS_MUST_CHECK int mls_trusted_store_open(struct mls_trusted_store **store, const char *uri,
						  const uint8_t uuid[MLS_UUID_BYTES]);
MLS_API void mls_trusted_store_destroy(struct mls_trusted_store *store);	/* NULL is fine */

/* Where the default store of this disk is: for messages. MLS_EINVAL: no home directory is known, or
 * the path doesn't fit. */
MLS_API MLS_MUST_CHECK int mls_trusted_store_default_path(char *path, size_t path_bytes,
							  const uint8_t uuid[MLS_UUID_BYTES]);

/* ---- Secrets ------------------------------------------------------------------------------- */

/* Borrowed for the call; the caller wipes it. */
struct mls_secret {
	const void *data;
	size_t bytes;
	bool passphrase;	/* true: always the slow KDF; false: a key file (>= 32 bytes: HKDF) */
};

/* ---- The disk ------------------------------------------------------------------------------ */

struct mls_disk;

struct mls_format_opts {
	uint64_t disk_bytes;		/* virtual size; rounded down to whole blocks; > 0 */
	uint32_t run_blocks;		/* 0: by size. Power of two, 16 ... 4096 */
	uint32_t wal_blocks;		/* 0: by size */
	uint32_t scrypt_log_n;		/* 0: default. Cost of the passphrase KDF, 14 ... 22 */
};

/* Bytes a backing needs so that a disk of disk_bytes can be filled and overwritten for ever. */
MLS_API uint64_t mls_backing_bytes(uint64_t disk_bytes);

/* The largest disk for a backing of backing_bytes; 0: too small. */
MLS_API uint64_t mls_disk_bytes_for_backing(uint64_t backing_bytes);

/*
 * Make a new disk on dev: constant time. Whatever dev held is lost; ask mls_probe first.
 *
 * store    gets the first register value; NULL: no trusted store. The UUID must be known to open
 *          a default store, so the caller draws it (mls_uuid_new).
 * Returns  0; MLS_EINVAL; MLS_ENOSPC: dev is too small for any disk; MLS_EIO; MLS_ENOMEM.
 */
MLS_API MLS_MUST_CHECK int mls_disk_format(struct mls_block_dev *dev, struct mls_trusted_store *store,
					   const struct mls_secret *secret,
					   const uint8_t uuid[MLS_UUID_BYTES],
					   const struct mls_format_opts *opts);

MLS_API MLS_MUST_CHECK int mls_uuid_new(uint8_t uuid[MLS_UUID_BYTES]);	/* random, RFC 4122 version 4 */

#define MLS_UUID_TEXT_BYTES 37u
/* "01234567-89ab-cdef-0123-456789abcdef" and its NUL. */
MLS_API void mls_uuid_format(char text[MLS_UUID_TEXT_BYTES], const uint8_t uuid[MLS_UUID_BYTES]);

/* What can be said without a key. Nothing of it is authenticated. */
struct mls_probe {
	uint8_t uuid[MLS_UUID_BYTES];
	uint64_t disk_bytes;
	unsigned nr_slots_used;
	bool is_mlsdisk;		/* false: the rest is zero */
};
MLS_API MLS_MUST_CHECK int mls_probe(struct mls_block_dev *dev, struct mls_probe *probe);

/* ---- Key slots: several secrets, any of which opens the disk -------------------------------- */

#define MLS_KEY_LABEL_BYTES 40u
#define MLS_KEY_SLOT_ANY (-1)

struct mls_key_info {
	bool used;			/* false: the rest is zero */
	bool passphrase;		/* stretched by scrypt (a passphrase or a short key file) */
	uint32_t scrypt_log_n;
	char label[MLS_KEY_LABEL_BYTES];	/* NUL-terminated; the host may have written any bytes here */
};

/* The slots, as can be seen without a key: nothing of it is authenticated. MLS_EFORMAT: not an MlsDisk;
 * MLS_EAUTH: both superblocks are damaged; MLS_EIO; MLS_ENOMEM. */
MLS_API MLS_MUST_CHECK int mls_key_list(struct mls_block_dev *dev, struct mls_key_info info[MLS_NR_KEY_SLOTS]);

/*
 * Add, remove or replace a secret. The disk must not be open; dev's lock sees to that. A crash leaves
 * the old or the new set of slots; an error other than of a write leaves the old one.
 *
 * What a removed secret can still do: the master key stays the same, so whoever has the secret and a
 * copy of the old superblock has the key to old copies of BACKING. An old superblock put back is
 * refused by the open that follows the next opening for writing.
 *
 * secret   opens the disk now.
 * slot     which slot; MLS_KEY_SLOT_ANY: add: the first free one; remove, change: the one that secret opens.
 * label    for people, up to 39 bytes; NULL: none. Not secret.
 * changed  gets the slot's number; may be NULL.
 * Returns  0; MLS_EINVAL: no such slot number, an empty new secret, or the last slot would be removed;
 *          MLS_EEXIST: add: the slot is used; MLS_ENOENT: remove, change: it isn't; MLS_ENOSPC: add: all
 *          are used; and as mls_disk_open for the superblock.
 */
MLS_API MLS_MUST_CHECK int mls_key_add(struct mls_block_dev *dev, const struct mls_secret *secret,
				       const struct mls_secret *new_secret, int slot, const char *label,
				       unsigned *changed);
MLS_API MLS_MUST_CHECK int mls_key_remove(struct mls_block_dev *dev, const struct mls_secret *secret, int slot,
					  unsigned *changed);
MLS_API MLS_MUST_CHECK int mls_key_change(struct mls_block_dev *dev, const struct mls_secret *secret,
					  const struct mls_secret *new_secret, int slot, const char *label,
					  unsigned *changed);
/* The same, and store hears of it: an old superblock is refused at once. *told: 0, or why the store didn't (the next
 * open for writing tells it); set if 0 is returned and store isn't NULL. store NULL: as without. */
MLS_API MLS_MUST_CHECK int mls_key_remove_told(struct mls_block_dev *dev, struct mls_trusted_store *store,
					       const struct mls_secret *secret, int slot, unsigned *changed, int *told);
MLS_API MLS_MUST_CHECK int mls_key_change_told(struct mls_block_dev *dev, struct mls_trusted_store *store,
					       const struct mls_secret *secret, const struct mls_secret *new_secret,
					       int slot, const char *label, unsigned *changed, int *told);

struct mls_open_opts {
	bool read_only;			/* nothing is written, also not to the trusted store */
	bool accept_rollback;		/* one time: take the state that is there, whatever the store says or
					 * doesn't (MLS_ENOENT, MLS_EAUTH), and move it on from there */
	bool strict_sync;		/* --sync-policy=strict: ENOSPC rather than an early sync */
	bool inline_work;		/* no threads: background work is done by the calls (tests) */
	bool no_discard;		/* free space isn't given back to dev */
	bool no_defrag;			/* reads cause no writes; else what is read in sequence is put in sequence */
	uint64_t cache_bytes;		/* 0: default. Bound of the index cache */
	uint32_t memtable_records;	/* 0: default, by the size of the WAL ring */
};

/*
 * Recover and open. dev and store are borrowed and must outlive the disk; store NULL: freshness
 * across restarts is given up.
 *
 * Returns  0; MLS_EFORMAT: not an MlsDisk; MLS_EKEY: wrong key; MLS_EAUTH: tampered or damaged;
 *          MLS_ESTALE: rollback, lost or foreign store (the log says expected and found sync id);
 *          MLS_EIO; MLS_ENOMEM. Nothing has been written if it is one of EFORMAT, EKEY, EAUTH,
 *          ESTALE.
 */
MLS_API MLS_MUST_CHECK int mls_disk_open(struct mls_disk **disk, struct mls_block_dev *dev,
					 struct mls_trusted_store *store, const struct mls_secret *secret,
					 const struct mls_open_opts *opts);

/*
 * Read or write any byte range within the disk.
 *
 * Atomic   per 4096-byte block, against all other writers and readers. Whole aligned blocks into
 *          an aligned buffer are the fast case.
 * Returns  0; MLS_EINVAL: outside the disk; MLS_EAUTH: a block isn't what was written (the content
 *          of buf is undefined); MLS_EIO; MLS_ENOMEM; for writes MLS_ENOSPC, MLS_EROFS,
 *          MLS_EPOISONED.
 */
MLS_API MLS_MUST_CHECK int mls_disk_read(struct mls_disk *disk, uint64_t offset, void *buf, size_t bytes);
MLS_API MLS_MUST_CHECK int mls_disk_write(struct mls_disk *disk, uint64_t offset, const void *buf,
					  size_t bytes);

/* The range reads as zeros from now on. Whole blocks give their space back after the next sync. */
MLS_API MLS_MUST_CHECK int mls_disk_discard(struct mls_disk *disk, uint64_t offset, uint64_t bytes);

/* All writes that returned before are durable, and no later open shows an earlier state. */
MLS_API MLS_MUST_CHECK int mls_disk_sync(struct mls_disk *disk);

/*
 * Make the disk larger while it is used: new_bytes, rounded down to whole blocks. The new part reads as
 * zeros. If dev has grown, the disk uses that, too, up to three times the runs it was formatted with.
 * Crash-safe; when it returns 0 no later open shows the old size.
 *
 * Returns  0, also when there is nothing to do; MLS_EINVAL: smaller than it is, or too large; MLS_EROFS;
 *          MLS_EPOISONED; MLS_ENOMEM; MLS_EIO.
 */
MLS_API MLS_MUST_CHECK int mls_disk_resize(struct mls_disk *disk, uint64_t new_bytes);

/* First offset >= offset that is in a written (data true) or unwritten (false) block; the disk's
 * size is the end of the last hole. MLS_ENOENT: none. */
MLS_API MLS_MUST_CHECK int mls_disk_seek(struct mls_disk *disk, uint64_t offset, bool data,
					 uint64_t *found);

struct mls_disk_stat {
	uint8_t uuid[MLS_UUID_BYTES];
	uint64_t disk_bytes;
	uint64_t sync_id;		/* last completed sync */
	uint64_t nr_runs, nr_free_runs, nr_segments, nr_chunks;	/* of run_blocks blocks each */
	uint64_t nr_room_runs;		/* of the free ones: what user data may take; the others are for index and cleaner */
	uint64_t run_blocks;
	uint64_t live_blocks;		/* index records that point to a block; >= mapped LBAs */
	uint64_t reads, writes, syncs, early_syncs, discards;	/* calls since open */
	uint64_t read_bytes, written_bytes;			/* by callers */
	uint64_t dev_written_blocks, dev_read_blocks, dev_flushes;	/* below */
	uint64_t cleaned_segments, moved_blocks, compactions, memtable_flushes;
	uint64_t integrity_errors;
	bool poisoned;
};
MLS_API void mls_disk_stat(struct mls_disk *disk, struct mls_disk_stat *stat);

/*
 * The same and more as a JSON document, described in mlsdisk-fuse(1). *json is malloc'ed and ends with
 * a NUL; *bytes is its length without it. MLS_ENOMEM.
 */
MLS_API MLS_MUST_CHECK int mls_disk_stats_json(struct mls_disk *disk, char **json, size_t *bytes);

/* Sync unless read-only or poisoned, stop the threads, free all. Returns the sync's result, or
 * MLS_EPOISONED; the disk is gone in any case. */
MLS_API int mls_disk_close(struct mls_disk *disk);

#ifdef __cplusplus
}
#endif
#endif
