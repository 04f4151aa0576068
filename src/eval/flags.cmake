# The report's templates become one header of string literals.
file(GLOB _templates CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/eval/report/templates/*")
set_property(DIRECTORY "${PROJECT_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${_templates})
set(_literals "")
foreach(_template IN LISTS _templates)
  get_filename_component(_name "${_template}" NAME)
  file(READ "${_template}" _text)
  string(APPEND _literals "    {\"${_name}\", R\"steer(${_text})steer\"},\n")
endforeach()
file(GENERATE OUTPUT "${PROJECT_BINARY_DIR}/generated/eval/report/templates.hpp" CONTENT
"// Made from src/eval/report/templates by src/eval/flags.cmake.
#pragma once

#include <string_view>

namespace steer::eval::detail {

struct Template {
  std::string_view name, text;
};

inline constexpr Template kTemplates[] = {
${_literals}};

}  // namespace steer::eval::detail
")
target_include_directories(steer_eval PRIVATE "${PROJECT_BINARY_DIR}/generated")
