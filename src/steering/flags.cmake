# Files of a few dozen lines each, read by the compiler in one go: all but the parsing of headers is done in no time.
file(GLOB _edits CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/steering/edits/*.cpp")
set_source_files_properties(${_edits} PROPERTIES UNITY_GROUP edits)
set_target_properties(steer_steering PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
steer_for_each_isa(steering kernels)
