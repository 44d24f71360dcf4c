/* SPDX-License-Identifier: MPL-2.0 */
/*
 * verdict.c - is the newest sync on BACKING the one that the trusted store tells of?
 *
 * With T the store's sync, M the newest on BACKING:
 *   M = T           the tags are equal
 *   M = T + 1       T's tag is the one before M, and M's data is there; else M := T
 *   no store        M, or the one before if M's data isn't there
 *   anything else   refused, unless the user takes what is there
 */
#include "5-disk/verdict.h"

#include <string.h>

static bool is_sync(const struct mls_sync_head *head, const struct mls_trust *trust)
{
	return head->sync_id == trust->sync_id && mls_equal_const_time(head->tag, trust->digest, MLS_TAG_BYTES);
}

enum mls_verdict mls_verdict_of(const struct mls_trust *trust, uint64_t generation, const struct mls_replay *replay,
				bool anything)
{
	const struct mls_sync_head *newest = mls_replay_newest(replay);

	if (newest->generation > generation)
		return MLS_VERDICT_OLD_SUPERBLOCK;
	if (trust && is_sync(newest, trust))
		return MLS_VERDICT_NEWEST;
	if (!trust || anything)
		return replay->has_last ? MLS_VERDICT_IF_WHOLE : MLS_VERDICT_NEWEST;
	if (replay->has_last && replay->last.sync_id == trust->sync_id + 1 && is_sync(&replay->before, trust))
		return MLS_VERDICT_IF_WHOLE;
	if (newest->sync_id < trust->sync_id)
		return replay->more_behind ? MLS_VERDICT_BROKEN : MLS_VERDICT_ROLLBACK;
	return MLS_VERDICT_MISMATCH;
}

bool mls_verdict_area_is_of(const struct mls_journal_info *info, const struct mls_sync_head *head)
{
	return memcmp(info->session, head->session, MLS_SESSION_BYTES) == 0 && info->commit >= head->commit;
}
