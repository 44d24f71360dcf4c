/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_print.c - sections superblock and journal: what leads to all the rest.
 *
 * Salts and wrapped keys stand in clear on BACKING, but have no business in a bug report: they aren't
 * shown. Tags are; they prove, and open nothing.
 */
#include <string.h>

#include "tools/dump.h"

/* ---- Superblock ---- */

const char *dump_copy_state(enum mls_copy_state state)
{
	static const char *const names[] = {
		[MLS_COPY_MISSING] = "missing", [MLS_COPY_UNREADABLE] = "unreadable",
		[MLS_COPY_VERSION] = "unknown version", [MLS_COPY_DAMAGED] = "damaged",
		[MLS_COPY_LOCKED] = "not authenticated", [MLS_COPY_FORGED] = "forged",
		[MLS_COPY_AUTHENTIC] = "authentic",
	};

	return names[state];
}

static void print_copies(struct dump *d)
{
	static const struct out_column columns[] = {
		{ "copy", 4 }, { "hba", 6 }, { "generation", 10 }, { "state", -17 },
	};

	out_table(d->out, "copies", columns, NR_COLUMNS(columns));
	for (unsigned i = 0; i < MLS_NR_COPIES; i++) {
		const struct mls_superblock_copy *copy = &d->x->copies[i];

		out_row(d->out);
		out_number(d->out, "copy", i);
		out_number(d->out, "hba", copy->hba);
		out_number_if(d->out, "generation", copy->state >= MLS_COPY_DAMAGED, copy->sb.generation);
		out_text(d->out, "state", dump_copy_state(copy->state));
		out_row_end(d->out);
	}
	out_table_end(d->out);
}

static void print_slots(struct dump *d)
{
	static const struct out_column columns[] = {
		{ "slot", 4 }, { "kdf", -7 }, { "scrypt_log_n", 12 }, { "opened", -6 }, { "label", -40 },
	};
	const struct mls_superblock *sb = &d->x->sb;

	out_table(d->out, "key_slots", columns, NR_COLUMNS(columns));
	for (unsigned i = 0; i < MLS_NR_KEY_SLOTS; i++) {
		const struct mls_key_slot_disk *slot = &sb->slots[i];
		char label[sizeof slot->label + 1] = "";

		if (slot->state == 0)
			continue;
		memcpy(label, slot->label, sizeof slot->label);
		out_row(d->out);
		out_number(d->out, "slot", i);
		out_text(d->out, "kdf", slot->kdf == 1 ? "hkdf" : slot->kdf == 2 ? "scrypt" : "unknown");
		out_number_if(d->out, "scrypt_log_n", slot->kdf == 2, slot->scrypt_log_n);
		out_bool(d->out, "opened", d->x->authentic && i == sb->opened_slot);
		out_text(d->out, "label", label);
		out_row_end(d->out);
	}
	out_table_end(d->out);
}

static void print_area(struct dump *d, const char *what, uint64_t hba, uint64_t nr_blocks)
{
	out_row(d->out);
	out_text(d->out, "what", what);
	out_number(d->out, "hba", hba);
	out_blocks(d->out, "blocks", nr_blocks);
	out_row_end(d->out);
}

static void print_layout(struct dump *d)
{
	static const struct out_column columns[] = { { "what", -14 }, { "hba", 12 }, { "blocks", 12 } };
	const struct mls_inspect *x = d->x;

	out_table(d->out, "layout", columns, NR_COLUMNS(columns));
	print_area(d, "superblock 0", MLS_SUPERBLOCK_HBA_0, 1);
	print_area(d, "superblock 1", MLS_SUPERBLOCK_HBA_1, 1);
	print_area(d, "journal area 0", x->areas[0].hba, x->areas[0].nr_blocks);
	print_area(d, "journal area 1", x->areas[1].hba, x->areas[1].nr_blocks);
	print_area(d, "WAL ring", x->wal_hba, x->wal_blocks);
	print_area(d, "runs", x->runs_hba, x->nr_runs * x->run_blocks);
	out_table_end(d->out);
}

int dump_superblock(struct dump *d)
{
	const struct mls_inspect *x = d->x;
	char uuid[MLS_UUID_TEXT_BYTES];

	out_object(d->out, "superblock");
	print_copies(d);
	if (x->has_sb) {
		mls_uuid_format(uuid, x->sb.uuid);
		out_text(d->out, "uuid", uuid);
		out_number(d->out, "format_version", MLS_FORMAT_VERSION);
		out_number(d->out, "generation", x->sb.generation);
		out_blocks(d->out, "disk_blocks", x->sb.geo.disk_blocks);
		out_blocks(d->out, "backing_blocks", x->dev->nr_blocks);
		out_blocks(d->out, "run_blocks", x->run_blocks);
		out_number(d->out, "runs", x->nr_runs);
		out_number(d->out, "slots_per_segment", x->nr_slots);
		print_layout(d);
		print_slots(d);
	}
	out_object_end(d->out);
	return 0;
}

/* ---- Journal and WAL ---- */

static const char *verdict_name(enum mls_verdict_kind verdict)
{
	static const char *const names[] = {
		[MLS_INSPECT_UNKNOWN] = "unknown", [MLS_INSPECT_CLEAN] = "clean",
		[MLS_INSPECT_NEEDS_RECOVERY] = "needs recovery", [MLS_INSPECT_REFUSED] = "refused",
	};

	return names[verdict];
}

static const char *store_state(int err)
{
	switch (err) {
	case MLS_OK:
		return "read";
	case MLS_ENOENT:
		return "none or empty";
	case MLS_EAUTH:
		return "damaged";
	case MLS_ESTALE:
		return "of another disk";
	default:
		return "unreadable";
	}
}

static void print_store(struct dump *d)
{
	const struct mls_inspect *x = d->x;

	out_object(d->out, "trusted_store");
	out_text(d->out, "state", store_state(x->store_err));
	out_number_if(d->out, "sync_id", x->has_trust, x->trust.sync_id);
	if (x->has_trust)
		out_hex(d->out, "digest", x->trust.digest, sizeof x->trust.digest);
	else
		out_none(d->out, "digest");
	out_object_end(d->out);
}

static void print_accepted(struct dump *d)
{
	const struct mls_sync_head *head = &d->x->accepted;

	out_object(d->out, d->x->verdict == MLS_INSPECT_REFUSED ? "newest_sync" : "accepted_sync");
	out_number(d->out, "sync_id", head->sync_id);
	out_hex(d->out, "digest", head->tag, sizeof head->tag);
	out_hex(d->out, "session", head->session, sizeof head->session);
	out_number(d->out, "commit", head->commit);
	out_object_end(d->out);
}

static void print_areas(struct dump *d)
{
	static const struct out_column columns[] = {
		{ "area", 4 }, { "hba", 9 }, { "blocks", 8 }, { "state", -8 }, { "accepted", -8 },
		{ "ordinal", 7 }, { "commit", 8 }, { "groups", 7 }, { "used_blocks", 11 }, { "edits", 9 },
		{ "session", -32 },
	};

	out_table(d->out, "areas", columns, NR_COLUMNS(columns));
	for (unsigned i = 0; i < MLS_NR_JOURNAL_AREAS; i++) {
		const struct mls_inspect_area *area = &d->x->areas[i];
		bool ok = d->x->authentic && area->err == 0;

		out_row(d->out);
		out_number(d->out, "area", i);
		out_number(d->out, "hba", area->hba);
		out_blocks(d->out, "blocks", area->nr_blocks);
		out_text(d->out, "state", !d->x->authentic ? "locked" : ok ? "ok" :
			 area->err == MLS_ENOENT ? "none" : area->err == MLS_EIO ? "unread" : "damaged");
		out_bool(d->out, "accepted", ok && area->accepted);
		out_number_if(d->out, "ordinal", ok, area->info.ordinal);
		out_number_if(d->out, "commit", ok, area->info.commit);
		out_number_if(d->out, "groups", ok, area->nr_groups);
		out_number_if(d->out, "used_blocks", ok, area->used_blocks);
		out_number_if(d->out, "edits", ok && area->nr_edits, area->nr_edits);	/* 0: not loaded */
		if (ok)
			out_hex(d->out, "session", area->info.session, sizeof area->info.session);
		else
			out_none(d->out, "session");
		out_row_end(d->out);
	}
	out_table_end(d->out);
}

static const char *group_kind(const struct mls_wal_group *group)
{
	if (group->flags & MLS_WAL_FLAG_OPEN)
		return "open";
	return group->flags & MLS_WAL_FLAG_SETTLED ? "settled" : "sync";
}

static void print_groups(struct dump *d)
{
	static const struct out_column columns[] = {
		{ "seq", 9 }, { "hba", 9 }, { "blocks", 6 }, { "sync_id", 8 }, { "kind", -7 },
		{ "accepted", -8 }, { "commit", 7 }, { "generation", 10 }, { "records", 8 }, { "digest", -32 },
	};
	const struct mls_inspect *x = d->x;

	out_table(d->out, "wal_groups", columns, NR_COLUMNS(columns));
	for (size_t i = 0; i < x->nr_groups; i++) {
		const struct mls_inspect_group *g = &x->groups[i];

		out_row(d->out);
		out_number(d->out, "seq", g->seq);
		out_number(d->out, "hba", x->wal_hba + g->seq % x->wal_blocks);
		out_blocks(d->out, "blocks", g->nr_blocks);
		out_number(d->out, "sync_id", g->group.head.sync_id);
		out_text(d->out, "kind", group_kind(&g->group));
		out_bool(d->out, "accepted", g->accepted);
		out_number(d->out, "commit", g->group.head.commit);
		out_number(d->out, "generation", g->group.head.generation);
		out_number(d->out, "records", g->group.nr_recs);
		out_hex(d->out, "digest", g->group.head.tag, sizeof g->group.head.tag);
		out_row_end(d->out);
	}
	out_table_end(d->out);
}

int dump_journal(struct dump *d)
{
	const struct mls_inspect *x = d->x;

	out_object(d->out, "journal");
	out_text(d->out, "verdict", verdict_name(x->verdict));
	out_text(d->out, "recovery", x->verdict == MLS_INSPECT_NEEDS_RECOVERY ? x->recovery : NULL);
	if (x->authentic)
		print_store(d);
	if (x->verdict != MLS_INSPECT_UNKNOWN)
		print_accepted(d);
	if (x->has_sb)
		print_areas(d);
	if (x->lsm.has_wal_start) {
		out_number(d->out, "wal_start_seq", x->lsm.wal_start.pos.seq);
		out_number(d->out, "wal_start_sync_id", x->lsm.wal_start.sync_id);
		out_bool(d->out, "wal_damaged_behind", x->wal_more_behind);
		print_groups(d);
	}
	out_object_end(d->out);
	return 0;
}
