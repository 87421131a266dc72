/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mrcache run --verify: waits for the program, and reads what each process that
 * registered memory wrote of itself. What that proves is in docs/preload.md.
 */
#ifndef MRCACHE_VERIFY_H
#define MRCACHE_VERIFY_H

/*
 * Runs a program in the environment as it is, with signals passed on, and says
 * what was found. The processes write into a new directory in `directory`, which
 * stays; NULL: in /tmp, and it is removed in the end. Returns an exit status; dies
 * of the signal that the program died of.
 */
int verify_run(char **argv, const char *directory);

#endif /* MRCACHE_VERIFY_H */
