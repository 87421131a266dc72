# SPDX-License-Identifier: BSD-2-Clause
#
# What ctest knows.  Labels say what a test needs:
#
#   unit, preload   programs of this build, on any machine
#   guest           those that need the driver or RDMA: in a guest
#
# and, where MRCACHE_SUITE is on,
#
#   valgrind        the same programs under valgrind
#   model           the models, by spin
#   analysis        static analysers
#   native          the driver as a program, and its mutants
#   mutant          mutants of the library
#   guest-mutant    mutants that programs in the guest must find
#
# MRCACHE_TEST_CASE in the environment is a pattern for the names of the cases
# to run: see tests/support/case.c.

set(judge setpriv --pdeathsig TERM ${CMAKE_CURRENT_SOURCE_DIR}/runner/judge)
set(results ${PROJECT_BINARY_DIR}/results)

# Everything takes longer where it is checked or counted.
set(slowness 1)
if(MRCACHE_SANITIZE)
  set(slowness 3)
elseif(CMAKE_C_FLAGS MATCHES "--coverage")
  set(slowness 10)
endif()

# Programs that may skip all of their cases, and why.
if(NOT MRCACHE_TOOLS)
  set(all_skipped_test_cli "the command is not built")
endif()

# Programs that use as many processors as there are.
set(wide test_fork test_index test_threads)

# Programs that look for what others of the same user leave in /dev/shm.
set(lock_test_cli counters)
set(lock_test_preload_process counters)

# A program that speaks TAP.
function(add_tap_test name label seconds skips)
  add_test(NAME ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    COMMAND ${judge} --base ${results}/${name} --time ${seconds}
      --skips ${skips} -- ${ARGN})
  # The judge says more about one that takes too long, so it comes first.
  math(EXPR limit "${seconds} + 30")
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT ${limit})
endfunction()

# The test programs of a directory.
function(get_programs directory variable)
  get_property(targets DIRECTORY ${directory} PROPERTY BUILDSYSTEM_TARGETS)
  list(FILTER targets INCLUDE REGEX "^test_")
  set(${variable} ${targets} PARENT_SCOPE)
endfunction()

set(host_labels unit)
if(TARGET mrcache-preload AND NOT MRCACHE_SANITIZE)
  list(APPEND host_labels preload)
endif()
add_library(test_case OBJECT support/case.c)
target_link_libraries(test_case PRIVATE PkgConfig::CMOCKA)
foreach(label ${host_labels} guest)
  get_programs(${label} ${label}_programs)
  foreach(name ${${label}_programs})
    target_link_libraries(${name} PRIVATE test_case)
  endforeach()
endforeach()

math(EXPR seconds "60 * ${slowness}")
foreach(label ${host_labels})
  foreach(name ${${label}_programs})
    set(skips some)
    if(all_skipped_${name})
      set(skips all)
    endif()
    add_tap_test(${name} ${label} ${seconds} ${skips} $<TARGET_FILE:${name}>)
    if(name IN_LIST wide)
      set_tests_properties(${name} PROPERTIES PROCESSORS 2)
    endif()
    if(lock_${name})
      set_tests_properties(${name} PROPERTIES RESOURCE_LOCK ${lock_${name}})
    endif()
  endforeach()
endforeach()

# A command whose exit status says all.
function(add_check name label seconds)
  add_test(NAME ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    COMMAND setpriv --pdeathsig TERM ${CMAKE_CURRENT_SOURCE_DIR}/runner/noted
      ${results}/${name} ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT ${seconds})
endfunction()

# --- in the guest ------------------------------------------------------------------

# One boot for all: see vm/session, which knows how long each may take, on which
# kernel.  Only one program runs at a time.
function(add_guest fixture option)
  set(session ${CMAKE_CURRENT_SOURCE_DIR}/vm/session ${option})
  add_check(${fixture}/boot guest-fixture 3600 ${session} start
    ${PROJECT_BINARY_DIR})
  set_tests_properties(${fixture}/boot PROPERTIES FIXTURES_SETUP ${fixture}
    FIXTURES_REQUIRED module RESOURCE_LOCK guest)
  add_check(${fixture}/shutdown guest-fixture 3600 ${session} stop
    ${PROJECT_BINARY_DIR})
  set_tests_properties(${fixture}/shutdown PROPERTIES FIXTURES_CLEANUP ${fixture})
  foreach(name ${ARGN})
    add_check(${name} guest 7200 ${session} run ${PROJECT_BINARY_DIR} ${name})
    set_tests_properties(${name} PROPERTIES FIXTURES_REQUIRED ${fixture}
      RESOURCE_LOCK guest)
  endforeach()
endfunction()

if(MRCACHE_SUITE OR slowness EQUAL 10)
  set(list ${CMAKE_CURRENT_SOURCE_DIR}/guest/list)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${list})
  set(counted "")
  file(STRINGS ${list} lines REGEX "^test_")
  foreach(line ${lines})
    string(REGEX MATCH "^[a-z0-9_]+" name "${line}")
    if(NOT name IN_LIST guest_programs)
      message(FATAL_ERROR "${list}: there is no such test: ${name}")
    endif()
    if(line MATCHES " icount$")
      list(APPEND counted ${name})
    endif()
  endforeach()
  # The kernel takes minutes at first, a debug kernel half an hour.
  add_check(guest/module guest-fixture 7200
    ${CMAKE_CURRENT_SOURCE_DIR}/vm/session prepare)
  set_tests_properties(guest/module PROPERTIES FIXTURES_SETUP module)
  list(REMOVE_ITEM guest_programs ${counted})
  add_guest(guest "" ${guest_programs})
  if(counted)
    add_guest(guest-icount --icount ${counted})
  endif()
endif()

if(NOT MRCACHE_SUITE)
  return()
endif()

# --- under valgrind --------------------------------------------------------------

# It runs one thread at a time, and unless told to be fair the same one again:
# others may wait for minutes.
# What it cannot run, and why not.
set(no_valgrind_test_cli "runs programs, which would be without it")
set(no_valgrind_test_config "valgrind maps /dev/null, which Linux refuses")
set(no_valgrind_test_fabric "a child ends with what is its parent's")
set(no_valgrind_test_fork "children beside busy threads take minutes")
set(no_valgrind_test_heap "a child ends with what is its parent's threads'")
set(no_valgrind_test_hit_counts "runs valgrind itself, and forbids system calls")
set(no_valgrind_test_index "computes for minutes, and allocates two tables")
set(no_valgrind_test_threads "one thread at a time takes minutes")
set(no_valgrind_test_unload "what an unloaded library leaves is lost")

foreach(name ${unit_programs})
  if(NOT no_valgrind_${name})
    add_tap_test(valgrind/${name} valgrind 300 some valgrind --quiet
      --fair-sched=yes --error-exitcode=99 --leak-check=full
      --errors-for-leak-kinds=definite --show-leak-kinds=definite $<TARGET_FILE:${name}>)
  endif()
endforeach()

# --- models, analysers, the driver as a program ----------------------------------

add_tap_test(models model 300 none ${CMAKE_CURRENT_SOURCE_DIR}/model/check)

foreach(name gcc clang-tidy cppcheck shellcheck clang-format security documents abi mutations)
  add_check(analysis/${name} analysis 900
    ${CMAKE_CURRENT_SOURCE_DIR}/analysis ${name})
endforeach()
# One process for each processor.
set_tests_properties(analysis/gcc analysis/clang-tidy analysis/cppcheck
  PROPERTIES PROCESSORS 2)

set(native ${CMAKE_CURRENT_SOURCE_DIR}/native)
add_check(native/build native 300 ${native}/run build)
set_tests_properties(native/build PROPERTIES FIXTURES_SETUP native)
foreach(name races races-tsan scale)
  add_check(native/${name} native 900 ${native}/run ${name})
  set_tests_properties(native/${name} PROPERTIES FIXTURES_REQUIRED native)
endforeach()
set_tests_properties(native/races native/races-tsan PROPERTIES PROCESSORS 2)

# A line is a mutant and the programs that must find it.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${native}/mutants)
file(STRINGS ${native}/mutants lines REGEX "^[^#]")
foreach(line ${lines})
  separate_arguments(programs UNIX_COMMAND "${line}")
  list(POP_FRONT programs mutant)
  foreach(program ${programs})
    set(name native/${mutant}:${program})
    add_check(${name} native 600 ${native}/run mutant ${mutant} ${program})
    set_tests_properties(${name} PROPERTIES FIXTURES_REQUIRED native)
  endforeach()
endforeach()

# --- mutants ---------------------------------------------------------------------

# Each breaks a promise, and the cases that it names must find it.  Those of a
# driver that checks nothing itself: see mutations and run for the others.
add_guest(guest-mutants --mutants)
file(GLOB patches CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/mutations/*/*.patch)
foreach(patch ${patches})
  get_filename_component(mutant ${patch} NAME_WLE)
  # What stands before the diff may change.
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${patch})
  file(STRINGS ${patch} where REGEX "^Where: " LIMIT_COUNT 1)
  if(where STREQUAL "Where: unit")
    # The first in a copy builds more than what was changed.
    add_check(mutant/${mutant} mutant 600
      ${CMAKE_CURRENT_SOURCE_DIR}/runner/mutant ${mutant})
    file(STRINGS ${patch} programs REGEX "^Test: " LIMIT_COUNT 1)
    separate_arguments(programs UNIX_COMMAND "${programs}")
    foreach(program ${programs})
      if(lock_${program})
        set_tests_properties(mutant/${mutant} PROPERTIES
          RESOURCE_LOCK ${lock_${program}})
      endif()
    endforeach()
  elseif(where STREQUAL "Where: guest")
    # One is built while another waits for the guest.
    add_check(mutant/${mutant} guest-mutant 1800
      ${CMAKE_CURRENT_SOURCE_DIR}/runner/mutant ${mutant})
    set_tests_properties(mutant/${mutant} PROPERTIES FIXTURES_REQUIRED guest-mutants)
  elseif(NOT where)
    message(FATAL_ERROR "${patch} has no line 'Where:'")
  endif()
endforeach()
