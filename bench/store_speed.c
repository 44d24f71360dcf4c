/* SPDX-License-Identifier: MPL-2.0 */
/*
 * store_speed.c - how long trusted stores take for an update: what each sync waits for.
 *
 *	store_speed URI [URI]		such as file:/var/tmp/s tpm2:0x01800002
 *
 * The stores take turns, so that the ratio of their times means something where the times don't. Each
 * must be new: what it keeps afterwards is nobody's register.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mlsdisk/mlsdisk.h>

#define NR_ROUNDS 200

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double advance(struct mls_trusted_store *store, const struct mls_trust *trust)
{
	double began = seconds();

	if (store->ops->advance(store, trust) != 0)
		exit(1);
	return seconds() - began;
}

int main(int argc, char **argv)
{
	struct mls_trusted_store *store[2] = { NULL, NULL };
	struct mls_trust trust = { .sync_id = 0 };
	const uint8_t key[32] = "nobody's";
	double sum[2] = { 0, 0 };
	int nr = argc - 1;

	(void)setenv("TSS2_LOG", "all+none", 0);
	if (nr < 1 || nr > 2 || mls_uuid_new(trust.uuid))
		return 2;
	for (int i = 0; i < nr; i++) {
		if (mls_trusted_store_open(&store[i], argv[i + 1], trust.uuid) || !store[i] ||
		    store[i]->ops->set_key(store[i], key))
			return 1;
		(void)advance(store[i], &trust);
	}
	for (int round = 0; round < NR_ROUNDS; round++, trust.sync_id++)
		for (int i = 0; i < nr; i++)
			sum[i] += advance(store[i], &trust);
	for (int i = 0; i < nr; i++) {
		printf("%8.3f ms  %s\n", 1e3 * sum[i] / NR_ROUNDS, argv[i + 1]);
		mls_trusted_store_destroy(store[i]);
	}
	if (nr == 2)
		printf("ratio %.1f\n", sum[1] / sum[0]);
	return 0;
}
