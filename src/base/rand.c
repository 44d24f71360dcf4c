/* SPDX-License-Identifier: MPL-2.0 */
/* rand.c - the only source of random bytes; see rand.h. */
#include "base/rand.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"

static int from_kernel(void *arg, void *out, size_t bytes)
{
	uint8_t *p = out;

	(void)arg;
	while (bytes > 0) {
		ssize_t n = getrandom(p, bytes, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			mls_error("getrandom: %s", strerror(errno));
			return MLS_EIO;
		}
		p += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static mls_rand_fn *source = from_kernel;
static void *source_arg;

int mls_rand_bytes(void *out, size_t bytes)
{
	int err = source(source_arg, out, bytes);

	if (err)
		memset(out, 0, bytes);
	return err;
}

void mls_rand_set_source(mls_rand_fn *fn, void *arg)
{
	source = fn ? fn : from_kernel;
	source_arg = arg;
}
