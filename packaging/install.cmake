# SPDX-License-Identifier: BSD-2-Clause
#
# What an installation has besides the libraries and the command: the CMake
# package, manual pages, and what goes with the module.  `uninstall` takes away
# what the last `cmake --install` of this build directory installed.

include(CMakePackageConfigHelpers)

set(packaging ${CMAKE_CURRENT_BINARY_DIR}/packaging)
set(config_directory ${CMAKE_INSTALL_LIBDIR}/cmake/mrcache)

configure_package_config_file(packaging/mrcacheConfig.cmake.in
  ${packaging}/mrcacheConfig.cmake INSTALL_DESTINATION ${config_directory})
write_basic_package_version_file(${packaging}/mrcacheConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${packaging}/mrcacheConfig.cmake
  ${packaging}/mrcacheConfigVersion.cmake DESTINATION ${config_directory})
install(EXPORT mrcache NAMESPACE mrcache:: FILE mrcacheTargets.cmake
  DESTINATION ${config_directory})

# Each page says of which version it is.
file(GLOB pages CONFIGURE_DEPENDS docs/man/*.[1-8])
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${pages})
foreach(page ${pages})
  file(READ ${page} text)
  string(REPLACE "\n.Os\n" "\n.Os mrcache ${PROJECT_VERSION}\n" text "${text}")
  get_filename_component(name ${page} NAME)
  string(REGEX REPLACE ".*\\." "" section ${name})
  file(CONFIGURE OUTPUT ${packaging}/man/${name} CONTENT "${text}" @ONLY)
  install(FILES ${packaging}/man/${name}
    DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()

# Not below LIBDIR: udev and systemd look in lib/ of /usr and of /usr/local.
if(MRCACHE_MODULE)
  set(source src/ummunotify-${PROJECT_VERSION})
  configure_file(packaging/dkms.conf.in ${packaging}/dkms.conf @ONLY)
  install(FILES ${packaging}/dkms.conf DESTINATION ${source})
  file(GLOB driver CONFIGURE_DEPENDS kernel/*.[ch] kernel/Kbuild kernel/Makefile)
  install(FILES ${driver} DESTINATION ${source}/kernel)
  install(DIRECTORY include/linux DESTINATION ${source}/include)
  install(FILES kernel/60-ummunotify.rules DESTINATION lib/udev/rules.d)
  install(FILES packaging/ummunotify.conf DESTINATION lib/modules-load.d)
endif()

add_custom_target(uninstall COMMAND ${CMAKE_COMMAND}
  -D MANIFEST=${CMAKE_CURRENT_BINARY_DIR}/install_manifest.txt
  -P ${CMAKE_CURRENT_LIST_DIR}/uninstall.cmake)
