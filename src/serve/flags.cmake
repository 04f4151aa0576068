# Small files over large headers: compiled together, in few units. Files whose own names meet stand in different ones.
if(STEER_UNITY)
  set_target_properties(steer_serve PROPERTIES UNITY_BUILD_MODE GROUP)
  foreach(_group IN ITEMS
      "server service generation generation_call steering_request steering_shapes completions fields api_error metrics"
      "chat chat_messages tokens status reading reading_input features")
    string(MD5 _name "${_group}")
    string(REPLACE " " ";" _files "${_group}")
    foreach(_file IN LISTS _files)
      set_source_files_properties("${PROJECT_SOURCE_DIR}/src/serve/${_file}.cpp" PROPERTIES UNITY_GROUP "serve_${_name}")
    endforeach()
  endforeach()
endif()
# The page is part of the program: its text becomes a source file.
file(READ "${PROJECT_SOURCE_DIR}/src/serve/page.html" STEER_PAGE)
configure_file("${PROJECT_SOURCE_DIR}/src/serve/page.cpp.in" "${PROJECT_BINARY_DIR}/generated/serve_page.cpp" @ONLY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/serve/page.html")
set_source_files_properties("${PROJECT_BINARY_DIR}/generated/serve_page.cpp" PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
target_sources(steer_serve PRIVATE "${PROJECT_BINARY_DIR}/generated/serve_page.cpp")
