# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
#
# Copies of sources with a patch applied; for scripts to source.

# Makes TO what FROM is, touching only what differs, and not TO/build.
sync_tree() { # FROM TO
	local line from to
	mkdir -p "$2"
	# Its status is 1 if there is something to do.
	{ LC_ALL=C diff -rq --exclude=build "$1" "$2" || true; } |
		while read -r line; do
			case $line in
			"Files "*)
				read -r _ from _ to _ <<<"$line"
				cp "$from" "$to" ;;
			"Only in $2"*)
				line=${line#Only in }
				rm -rf "${line/: //}" ;;
			"Only in $1"*)
				line=${line#Only in }
				from=${line/: //}
				cp -r "$from" "$2${from#"$1"}" ;;
			*) echo "$line" >&2; return 1 ;;
			esac
		done
}

# A fresh copy of directories and files in DIR, with a patch applied.
patched_copy() { # DIR PATCH|- SOURCE...
	local dir=$1 patch=$2
	shift 2
	rm -rf "$dir"
	mkdir -p "$dir"
	cp --parents -r "$@" "$dir"
	[ "$patch" = - ] ||
		patch -d "$dir" -p1 -s --no-backup-if-mismatch <"$patch" ||
		{ echo "$patch does not apply"; return 1; }
}

# What a mutant of the library is built from.
# shellcheck disable=SC2034 # for those who source this
lib_sources=(CMakeLists.txt CMakePresets.json include lib tools bench examples
	tests/{CMakeLists.txt,tests.cmake,support,unit,preload,guest}
	tests/fuzz/*.*) # the corpus is a thousand files

# What stands before the diff of a mutation: `NAME: VALUE`, on one line or more.
field() { # PATCH NAME DEFAULT
	local value
	value=$(sed -n "/^\(---\|diff\)/q;s/^$2: *//p" "$1" | tr '\n' ' ')
	value=${value% }
	printf '%s\n' "${value:-$3}"
}

# Where build_patched builds.
patched_build() { # DIR PATCH PRESET
	echo "$1/$3-$(field "$2" Tools OFF)"
}

# The library with a patch, in DIR, which may have been another's: only what
# differs is built.
build_patched() { # DIR PATCH PRESET TARGET...
	local dir=$1 patch=$2 preset=$3 tools out
	out=$(patched_build "$@")
	tools=${out##*-}
	shift 3
	patched_copy "$dir/new" "$patch" "${lib_sources[@]}" || return
	sync_tree "$dir/new" "$dir/src"
	[ -e "$out/build.ninja" ] || cmake -S "$dir/src" -B "$out" --preset "$preset" \
		-DMRCACHE_WERROR=OFF -DMRCACHE_SUITE=OFF -DMRCACHE_TOOLS="$tools" || return
	ninja --quiet -C "$out" "$@"
}
