include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(steer_config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/steer")
install(TARGETS steer_common steer_component_stats steer_component_core EXPORT steerTargets)
install(TARGETS steer_component_eval EXPORT steerEvalTargets)
install(TARGETS steer_component_serve EXPORT steerServeTargets)
install(DIRECTORY include/steer DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES "${PROJECT_BINARY_DIR}/include/steer/core/version.hpp" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/steer/core")
install(EXPORT steerTargets NAMESPACE steer:: DESTINATION "${steer_config_dir}")
install(EXPORT steerEvalTargets NAMESPACE steer:: DESTINATION "${steer_config_dir}")
install(EXPORT steerServeTargets NAMESPACE steer:: DESTINATION "${steer_config_dir}")
configure_package_config_file(cmake/steerConfig.cmake.in "${PROJECT_BINARY_DIR}/steerConfig.cmake"
                              INSTALL_DESTINATION "${steer_config_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/steerConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/steerConfig.cmake" "${PROJECT_BINARY_DIR}/steerConfigVersion.cmake"
              cmake/SteerImports.cmake DESTINATION "${steer_config_dir}")
configure_file(cmake/steer.pc.in "${PROJECT_BINARY_DIR}/steer.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/steer.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

# The example programs, behind one command: `steer inspect PATH` runs libexec/steer/inspect. Where libtorch lies is
# unknown when they are packed, so they look for it in lib/steer/torch, a link that the user makes.
if(STEER_BUILD_EXAMPLES)
  set(steer_programs_dir "${CMAKE_INSTALL_LIBEXECDIR}/steer")
  get_property(programs GLOBAL PROPERTY STEER_PROGRAMS)
  set_target_properties(${programs} PROPERTIES
    INSTALL_RPATH "$ORIGIN/../../${CMAKE_INSTALL_LIBDIR};$ORIGIN/../../${CMAKE_INSTALL_LIBDIR}/steer/torch/lib")
  install(TARGETS ${programs} RUNTIME DESTINATION "${steer_programs_dir}")
  install(DIRECTORY DESTINATION "${CMAKE_INSTALL_LIBDIR}/steer")
  configure_file(cmake/steer.sh.in "${PROJECT_BINARY_DIR}/steer.sh" @ONLY)
  install(PROGRAMS "${PROJECT_BINARY_DIR}/steer.sh" DESTINATION "${CMAKE_INSTALL_BINDIR}" RENAME steer)
endif()

if(PROJECT_IS_TOP_LEVEL)
  include(SteerPack)
endif()
