# SPDX-License-Identifier: BSD-2-Clause
#
# Removes the files that MANIFEST names, and the directories below the prefix
# that are empty then.

if(NOT EXISTS ${MANIFEST})
  message(FATAL_ERROR "nothing was installed from here: there is no ${MANIFEST}")
endif()
file(STRINGS ${MANIFEST} files)

# The prefix is what all have in common: a later --prefix counts.  That of / is
# empty.
list(GET files 0 prefix)
foreach(file ${files})
  string(FIND ${file} "${prefix}/" at)
  while(NOT at EQUAL 0)
    string(REGEX REPLACE "/[^/]*$" "" prefix "${prefix}")
    string(FIND ${file} "${prefix}/" at)
  endwhile()
endforeach()

# Directories there that a distribution has also when they are empty.
set(kept "")
if(prefix MATCHES "^(/usr(/local)?)?$")
  string(APPEND kept "^/(bin|include|share|share/(man|man/man.)|src|lib|lib/[^/]+|"
    "lib/[^/]+/pkgconfig|lib/pkgconfig|lib/udev/rules.d)$")
endif()

foreach(file ${files})
  message(STATUS "Removing $ENV{DESTDIR}${file}")
  file(REMOVE $ENV{DESTDIR}${file})
endforeach()
foreach(file ${files})
  string(REGEX REPLACE "/[^/]*$" "" directory "${file}")
  while(NOT directory STREQUAL prefix)
    string(REPLACE "^${prefix}/" "/" below "^${directory}")
    if(kept AND below MATCHES "${kept}" AND NOT below MATCHES "/mrcache$")
      break()
    endif()
    # Refuses what is not empty.
    execute_process(COMMAND rmdir $ENV{DESTDIR}${directory} OUTPUT_QUIET ERROR_QUIET)
    string(REGEX REPLACE "/[^/]*$" "" directory "${directory}")
  endwhile()
endforeach()
file(REMOVE ${MANIFEST})
