/* SPDX-License-Identifier: MPL-2.0 */
/*
 * mlsdisk_format.h - every byte on BACKING: structs, sizes, versions.
 *
 * Role     Byte arrays only (no padding, no host order); numbers are little-endian (base/endian.h).
 *          Each struct's one decoder and one encoder stand in the module named beside it.
 *          Structs of one block or less; lists of them are packed without gaps.
 * Source   doc/format.md, which has pictures. A change here is a new MLS_FORMAT_VERSION.
 */
#ifndef MLS_FORMAT_H
#define MLS_FORMAT_H

#include "mlsdisk/mlsdisk.h"

#define MLS_FORMAT_VERSION 2u

/* ---- Places ---- */
#define MLS_SUPERBLOCK_HBA_0 0u
#define MLS_SUPERBLOCK_HBA_1 16u
#define MLS_JOURNAL_HBA 32u		/* two areas, then the WAL ring, then the runs */

#define MLS_RUN_BLOCKS_MIN 16u
#define MLS_RUN_BLOCKS_MAX 4096u
#define MLS_HBA_NONE 0u			/* no data block lies there: tombstone, unwritten */

/* ---- Superblock (5-disk/superblock.c) ---- */
#define MLS_SUPERBLOCK_MAGIC "MlsDisk\1"

/* One key slot (5-disk/key_slot.c). state 0: free, all other bytes 0. */
struct mls_key_slot_disk {
	uint8_t state;			/* 0 free, 1 used */
	uint8_t kdf;			/* 1 HKDF (key file), 2 scrypt (passphrase) */
	uint8_t scrypt_log_n;		/* 14 ... 22; 0 for HKDF */
	uint8_t reserved[5];
	uint8_t salt[32];		/* fresh at each change */
	uint8_t wrapped[32];		/* master key, AES-256-GCM, nonce 0, AAD: uuid || bytes 0..39 of this slot */
	uint8_t tag[16];
	uint8_t label[40];		/* UTF-8, padded with 0; covered by the superblock's MAC only */
	uint8_t reserved2[128];
};
_Static_assert(sizeof(struct mls_key_slot_disk) == 256, "key slot is 256 bytes");

struct mls_superblock_disk {
	uint8_t magic[8];
	uint8_t version[4];		/* MLS_FORMAT_VERSION */
	uint8_t run_blocks[4];
	uint8_t uuid[16];
	uint8_t generation[8];		/* +1 at each rewrite (key slots, growing); both copies equal */
	uint8_t disk_blocks[8];		/* virtual size */
	uint8_t journal_area_blocks[8];
	uint8_t wal_blocks[8];
	uint8_t nr_runs[8];
	uint8_t reserved[1912];
	struct mls_key_slot_disk slots[MLS_NR_KEY_SLOTS];
	uint8_t checksum[32];		/* SHA-256 of bytes 0..4031: tells damage from a wrong key */
	uint8_t mac[32];		/* HMAC-SHA256 of bytes 0..4063 under the superblock key */
};
_Static_assert(sizeof(struct mls_superblock_disk) == 4096, "superblock is a block");

/* ---- Chain block (1-crypto/crypto_chain.c) ---- */
#define MLS_CHAIN_FLAG_FIRST 1u		/* first block of a group */
#define MLS_CHAIN_FLAG_LAST 2u		/* last block of a group */
struct mls_chain_hdr_disk {
	uint8_t salt[32];		/* key = derive(label, salt) */
	uint8_t seq[8];
	uint8_t prev_tag[16];
	uint8_t payload_bytes[2];	/* <= MLS_CHAIN_ROOM_BYTES */
	uint8_t flags;
	uint8_t reserved[5];
	uint8_t tag[16];		/* AAD: bytes 0..63; all of the room is sealed, zero-padded */
};
_Static_assert(sizeof(struct mls_chain_hdr_disk) == 80, "chain header is 80 bytes");

/* ---- Blob (1-crypto/crypto_blob.c) ---- */
#define MLS_BLOB_MAGIC "MlsBlob1"
struct mls_blob_hdr_disk {
	uint8_t magic[8];
	uint8_t salt[32];		/* key = derive(label, salt); nonce 0 */
	uint8_t version[8];
	uint8_t payload_bytes[4];
	uint8_t reserved[12];
	uint8_t tag[16];		/* AAD: bytes 0..63; only payload_bytes are sealed */
};
_Static_assert(sizeof(struct mls_blob_hdr_disk) == 80, "blob header is 80 bytes");

/* ---- MHT node (1-crypto/crypto_log.c): sealed as a whole block ---- */
struct mls_mht_node_disk {
	uint8_t level[2];		/* 0: children are data blocks */
	uint8_t nr_children[2];		/* 1 ... 255 */
	uint8_t reserved[12];
	uint8_t child_tag[255][16];
};
_Static_assert(sizeof(struct mls_mht_node_disk) == 4096, "a node is a block");

/* ---- Journal group (2-edit/journal.c): this header, then edits ---- */
#define MLS_JOURNAL_SNAPSHOT 1u
struct mls_journal_hdr_disk {
	uint8_t session[16];
	uint8_t commit[8];
	uint8_t ordinal[8];
	uint8_t kind;			/* 0 commit, 1 snapshot */
	uint8_t reserved[7];
};
_Static_assert(sizeof(struct mls_journal_hdr_disk) == 40, "journal group header is 40 bytes");

struct mls_edit_hdr_disk {		/* before each edit */
	uint8_t owner;
	uint8_t reserved;
	uint8_t bytes[2];
};

/* ---- Edits of the log store (3-log/tx_log.c) ---- */
#define MLS_LOG_EDIT_CREATE 1u		/* mls_log_create_disk, then nr_chunks x le64 run */
#define MLS_LOG_EDIT_DELETE 2u		/* type, 7 reserved, le64 id */
#define MLS_LOG_EDIT_NEXT_ID 3u		/* type, 7 reserved, le64 next id (snapshot) */
struct mls_log_create_disk {
	uint8_t type;
	uint8_t bucket;
	uint8_t reserved[2];
	uint8_t nr_chunks[4];
	uint8_t id[8];
	uint8_t nr_data_blocks[8];
	uint8_t salt[32];
	uint8_t tag[16];
};
_Static_assert(sizeof(struct mls_log_create_disk) == 72, "log create edit is 72 bytes before its runs");

/* ---- Edits of the index (4-lsm/lsm_state.c) ---- */
#define MLS_LSM_EDIT_TABLE_ADD 1u
#define MLS_LSM_EDIT_TABLE_REMOVE 2u	/* type, 7 reserved, le64 log id */
#define MLS_LSM_EDIT_WAL_START 3u
struct mls_table_add_disk {
	uint8_t type;
	uint8_t level;
	uint8_t reserved[6];
	uint8_t log_id[8];
	uint8_t age[8];			/* of level 0: larger is newer */
	uint8_t epoch[8];		/* newest epoch in it */
	uint8_t nr_records[8];
	uint8_t min_lba[8];
	uint8_t max_lba[8];
};
_Static_assert(sizeof(struct mls_table_add_disk) == 56, "table edit is 56 bytes");
struct mls_wal_start_disk {
	uint8_t type;
	uint8_t reserved[7];
	uint8_t seq[8];
	uint8_t tag[16];
	uint8_t sync_id[8];		/* the sync whose group ends at seq */
	uint8_t session[16];		/* and its session and journal commit */
	uint8_t commit[8];
	uint8_t generation[8];		/* superblock generation in force then */
};
_Static_assert(sizeof(struct mls_wal_start_disk) == 72, "WAL start edit is 72 bytes");

/* ---- Edits of the segments (5-disk/segment_table.c) ---- */
#define MLS_SEG_EDIT_ADD 1u		/* nr live records in SSTables, signed */
#define MLS_SEG_EDIT_KEY 2u		/* mls_seg_key_disk */
#define MLS_SEG_EDIT_FREE 3u		/* mls_seg_add_disk, delta 0: this life of the run has ended */
#define MLS_SEG_EDIT_NEXT_BIRTH 4u	/* type, 7 reserved, le64: births below were given */
#define MLS_SEG_EDIT_TOTALS 5u		/* mls_totals_disk */
struct mls_seg_add_disk {
	uint8_t type;
	uint8_t reserved[3];
	uint8_t delta[4];		/* le32, two's complement */
	uint8_t run[8];
	uint8_t birth[8];
	uint8_t key_id[4];
};
_Static_assert(sizeof(struct mls_seg_add_disk) == 28, "segment edit is 28 bytes");
struct mls_seg_key_disk {		/* also an announcement in the WAL */
	uint8_t type;
	uint8_t reserved[3];
	uint8_t key_id[4];
	uint8_t salt[32];
};
_Static_assert(sizeof(struct mls_seg_key_disk) == 40, "key edit is 40 bytes");

#define MLS_NR_TOTALS 16u
struct mls_totals_disk {		/* what was done since format, up to the commit that has it */
	uint8_t type;
	uint8_t reserved[7];
	uint8_t total[MLS_NR_TOTALS][8];	/* by enum mls_total (5-disk/totals.h); the rest 0 */
};
_Static_assert(sizeof(struct mls_totals_disk) == 136, "totals edit is 136 bytes");

/* ---- WAL group (4-lsm/wal.c): header, announcements, records ---- */
#define MLS_WAL_FLAG_SETTLED 1u		/* its data was flushed before it was written */
#define MLS_WAL_FLAG_OPEN 2u		/* a session begins */
struct mls_wal_group_hdr_disk {
	uint8_t sync_id[8];
	uint8_t session[16];
	uint8_t commit[8];		/* journal commit that was durable then */
	uint8_t generation[8];		/* superblock generation in force */
	uint8_t nr_records[8];
	uint8_t announce_bytes[4];	/* of layer 5, opaque to layer 4 */
	uint8_t flags;
	uint8_t reserved[11];
};
_Static_assert(sizeof(struct mls_wal_group_hdr_disk) == 64, "WAL group header is 64 bytes");

struct mls_index_rec_disk {		/* WAL and SSTable */
	uint8_t lba[8];
	uint8_t hba[8];			/* location: HBA (40 bits) and birth of the segment (24); 0: tombstone */
	uint8_t tag[16];
};
_Static_assert(sizeof(struct mls_index_rec_disk) == 32, "index record is 32 bytes");

/* ---- SSTable (4-lsm/sstable.c): data blocks of records, then index blocks, then a footer block.
 *      Each is a block of a crypto log, so authenticated and encrypted there. ---- */
#define MLS_SST_RECS_PER_BLOCK 127u
struct mls_sst_block_disk {
	uint8_t nr_records[2];
	uint8_t reserved[30];
	struct mls_index_rec_disk rec[MLS_SST_RECS_PER_BLOCK];	/* ascending LBA, each once */
};
_Static_assert(sizeof(struct mls_sst_block_disk) == 4096, "SSTable block is a block");
struct mls_sst_footer_disk {
	uint8_t magic[8];		/* "MlsSst1\0" */
	uint8_t nr_records[8];
	uint8_t nr_record_blocks[8];
	uint8_t nr_index_blocks[8];	/* 512 x le64: first LBA of each record block */
	uint8_t min_lba[8];
	uint8_t max_lba[8];
	uint8_t reserved[4048];
};
_Static_assert(sizeof(struct mls_sst_footer_disk) == 4096, "SSTable footer is a block");

/* ---- Segment summary (5-disk/seg_summary.c): payload of a blob in a segment's last blocks ---- */
struct mls_seg_summary_disk {
	uint8_t run[8];
	uint8_t birth[8];
	uint8_t session[8];		/* sync id of the first group of the session that wrote it */
	uint8_t key_salt[32];
	uint8_t epoch[8];		/* current epoch when the first slot was taken, or one later */
	uint8_t nr_slots[4];
	uint8_t reserved[4];
	/* nr_slots x mls_seg_slot_disk, in slot order, which is the order of writing */
};
_Static_assert(sizeof(struct mls_seg_summary_disk) == 72, "segment summary head is 72 bytes");
struct mls_seg_slot_disk {
	uint8_t lba[8];			/* all ones: never in the index */
	uint8_t epoch[6];		/* le48; epoch and nr: the order of the write, see seg_summary.h */
	uint8_t nr[6];			/* le48 */
	uint8_t tag[16];
};
_Static_assert(sizeof(struct mls_seg_slot_disk) == 36, "segment summary slot is 36 bytes");

/* ---- Trusted store in a file (trust/store_file.c): two slots, written in turn, each at the start
 *      of a block of its own whose rest is zero. All bytes zero: a free slot. ---- */
#define MLS_TRUST_MAGIC "MlsTrust"
#define MLS_TRUST_VERSION 1u
#define MLS_NR_TRUST_SLOTS 2u
struct mls_trust_slot_disk {
	uint8_t magic[8];
	uint8_t version[4];
	uint8_t reserved[4];
	uint8_t counter[8];		/* +1 at each advance; the larger one is the newer slot */
	uint8_t uuid[16];
	uint8_t sync_id[8];
	uint8_t digest[16];
	uint8_t reserved2[416];
	uint8_t mac[32];		/* HMAC-SHA256 of bytes 0..479 under the store key */
};
_Static_assert(sizeof(struct mls_trust_slot_disk) == 512, "trust slot is 512 bytes");

/* ---- Trusted store in a TPM (trust/store_tpm2.c): an NV index that holds the same two slots, packed,
 *      and names its disk in the policy field of its public area. ---- */
struct mls_trust_nv_slot_disk {
	uint8_t head[64];		/* bytes 0..63 of struct mls_trust_slot_disk */
	uint8_t mac[32];		/* its mac; the bytes between are zero */
};
_Static_assert(sizeof(struct mls_trust_nv_slot_disk) == 96, "packed trust slot is 96 bytes");

struct mls_trust_nv_label_disk {
	uint8_t magic[8];		/* MLS_TRUST_MAGIC */
	uint8_t version[4];
	uint8_t uuid[16];
	uint8_t reserved[4];
};
_Static_assert(sizeof(struct mls_trust_nv_label_disk) == 32, "label is 32 bytes");

#endif
