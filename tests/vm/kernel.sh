# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# To be sourced by what prepares or boots a kernel: tests/vm/kernels has a file
# for each, by the name that --kernel has, with what differs from this:

kernels=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/kernels

# shellcheck disable=SC2034 # used by those who source this
read_kernel() { # NAME
	# One file, one kernel: a name is no path.
	[[ $1 != */* ]] && [ -f "$kernels/$1" ] || return
	# The processor it is for, as Debian names it; what is not this machine's
	# gets programs of its own: see prepare-sysroot.
	arch=amd64
	# The Debian it is in, a suite; empty: one of this machine's own.
	debian=
	# Pattern of its headers package's name: of a kernel without them, which
	# an archive may have, no module can be built.  The newest is taken.
	headers=
	# Instead: the package with the source, of a kernel that is built here
	# with the options of kernel.config, ARCH.config and NAME.config.
	source=
	# Directories of it that KASAN leaves alone, where the kernel has that.
	unchecked=()
	# Whether the matrix has it; empty: no.
	matrix=yes
	# Where its build tools do not run on this machine, or want another
	# compiler: packages of a system to build modules in, and its Debian.
	system=()
	system_debian=
	# Parameters for its command line, and arguments for the emulator.
	parameters=()
	emulator=()
	# shellcheck disable=SC1090 # whichever
	. "$kernels/$1"
	: "${system_debian:=$debian}"
}

# The names of all, or of those that the matrix has.
list_kernels() { # all|matrix
	local name
	for name in $(find "$kernels" -type f -printf '%f\n' | sort -V); do
		(read_kernel "$name" && [ "$1$matrix" != matrix ]) &&
			printf '%s\n' "$name"
	done
	return 0
}
