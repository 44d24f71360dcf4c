/* SPDX-License-Identifier: MPL-2.0 */
/*
 * rescue_wal.h - above all layers: what the WAL tells when no journal says where it starts.
 *
 * Role     For a salvage without an index: the lives of segments that have no summary, with the slots that
 *          records name; which LBAs were discarded last; and when sessions began.
 * Newest   The ring holds every group since its oldest: what a record says of an LBA counts only as long as no
 *          later group has one of it. A change that went to a table within its own epoch has none, though:
 *          of a life that must have ended long ago a slot may be named here that is another thing by now.
 * Memory   24 bytes a record of the ring, 48 bytes a slot of an announced segment.
 */
#ifndef MLS_CHECK_RESCUE_WAL_H
#define MLS_CHECK_RESCUE_WAL_H

#include "check/inspect.h"

struct rescue_life {
	uint64_t run, birth;
	uint32_t key_id;
	uint32_t session;		/* counted from the ring's oldest */
	uint32_t nr_later;		/* lives that its session began afterwards */
	struct mls_seg_slot *slots;	/* nr_slots; lba MLS_SLOT_VOID: no record */
};

struct rescue_note {
	uint64_t lba, loc;		/* loc: MLS_HBA_NONE: discarded */
	uint64_t epoch;			/* sync id of the group */
};

struct rescue_wal {
	struct mls_inspect *x;
	bool sessions_only;
	struct rescue_life *lives;
	uint32_t nr_lives, *last_life;	/* by run: 1 + number of its last life; 0: none */
	uint32_t session_now;		/* while the ring is read */
	struct { uint32_t id; uint8_t salt[MLS_SALT_BYTES]; } *keys;
	size_t nr_keys;
	struct rescue_note *notes;
	size_t nr_notes;
	uint64_t *sessions;		/* sync ids of first groups */
	size_t nr_sessions;
	uint64_t newest;		/* sync id of the newest group; 0: none was found */
};

/* Read the ring. sessions_only: nothing else is wanted. MLS_ENOMEM only. */
MLS_MUST_CHECK int rescue_wal_read(struct rescue_wal *w, struct mls_inspect *x, bool sessions_only);
void rescue_wal_release(struct rescue_wal *w);

/* The run's last life that was announced, and its key's salt; NULL: none, or the key isn't known. */
const struct rescue_life *rescue_wal_life(const struct rescue_wal *w, uint64_t run, const uint8_t **salt);

/* The group whose tombstone is the LBA's last record; 0: none. */
uint64_t rescue_wal_buried(const struct rescue_wal *w, uint64_t lba);

MLS_MUST_CHECK int rescue_wal_add_session(struct rescue_wal *w, uint64_t session);
/* After the last add: in order, each once. */
void rescue_wal_sort_sessions(struct rescue_wal *w);
/* Was a version of `epoch`, written in `session`, undone by a crash? */
bool rescue_wal_undone(const struct rescue_wal *w, uint64_t session, uint64_t epoch);

#endif
