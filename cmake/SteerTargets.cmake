# One object library a module, so that a test links, and a developer builds, only what lies below it.

# Every target shares these: the language, the include folder, torch and fmt (header only: libtorch's bundled
# fmt headers come first in the include path and do not match the system's compiled fmt).
add_library(steer_common INTERFACE)
target_compile_features(steer_common INTERFACE cxx_std_20)
target_include_directories(steer_common INTERFACE
  "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>" "$<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>"
  "$<INSTALL_INTERFACE:include>")
target_link_libraries(steer_common INTERFACE steer::dep_torch fmt::fmt-header-only nlohmann_json::nlohmann_json)
target_compile_options(steer_common INTERFACE "$<BUILD_INTERFACE:-Wall;-Wextra;-Wno-missing-field-initializers;-Wno-unknown-pragmas;-Wno-psabi>")
set(STEER_PRIVATE_LIBRARIES
  Eigen3::Eigen ZLIB::ZLIB OpenSSL::SSL steer::dep_openmp Threads::Threads
  steer::dep_sentencepiece steer::dep_pcre2 steer::dep_xxhash steer::dep_httplib steer::dep_zstd)

configure_file("${PROJECT_SOURCE_DIR}/cmake/version.hpp.in" "${PROJECT_BINARY_DIR}/include/steer/core/version.hpp" @ONLY)

function(steer_add_module module)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/${module}/*.cpp")
  if(NOT STEER_CUDA)
    list(FILTER sources EXCLUDE REGEX "/cuda/")
  endif()
  if(NOT sources)
    return()
  endif()
  add_library(steer_${module} OBJECT ${sources})
  target_link_libraries(steer_${module} PUBLIC steer_common PRIVATE ${STEER_PRIVATE_LIBRARIES})
  target_include_directories(steer_${module} PRIVATE "${PROJECT_SOURCE_DIR}/src")
  if(module MATCHES "^(model|steering)$" AND STEER_CUDA)
    target_compile_definitions(steer_${module} PRIVATE STEER_CUDA)
    target_include_directories(steer_${module} PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  endif()
  steer_use_pch(steer_${module})
  if(STEER_UNITY)
    set_target_properties(steer_${module} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
  endif()
  if(EXISTS "${PROJECT_SOURCE_DIR}/src/${module}/flags.cmake")
    include("${PROJECT_SOURCE_DIR}/src/${module}/flags.cmake")
  endif()
endfunction()

# The first target makes the precompiled header; all others reuse that one file.
function(steer_use_pch target)
  # One header serves objects and programs only if all are compiled alike: -fPIC for both, not -fPIE for some. Inside
  # another project there are objects alone, and that project's CMAKE_POSITION_INDEPENDENT_CODE decides.
  if(PROJECT_IS_TOP_LEVEL)
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  elseif(NOT DEFINED CMAKE_POSITION_INDEPENDENT_CODE)
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endif()
  target_link_libraries(${target} PRIVATE steer::dep_openmp)
  # ATen's operators one header each: all of them would make the precompiled header a third larger, and each file slower.
  target_compile_definitions(${target} PRIVATE AT_PER_OPERATOR_HEADERS)
  if(target STREQUAL "steer_core")
    target_precompile_headers(steer_core PRIVATE "${PROJECT_SOURCE_DIR}/src/pch.hpp")
    file(SHA256 "${PROJECT_SOURCE_DIR}/src/pch.hpp" checksum)
    set(known "${checksum} ${Torch_VERSION} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_BUILD_TYPE} ${CMAKE_CXX_FLAGS} ${STEER_SANITIZE}\n")
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
      target_compile_options(steer_core PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
      file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/CMakeFiles/steer_core.dir/cmake_pch.hxx.pch.sum"
           CONTENT "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_FLAGS_CHECK} ${known}")
    else()
      file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/CMakeFiles/steer_core.dir/cmake_pch.hxx.gch.sum" CONTENT "${known}")
    endif()
  else()
    target_precompile_headers(${target} REUSE_FROM steer_core)
  endif()
endfunction()

# One library a component (the modules it holds, what it links) and steer::steer, which is all of them. What is headers
# alone (Eigen, Boost.Math) is needed to build steer, not to use it.
function(steer_add_component component below)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "MODULES;LINKS")
  set(objects "")
  foreach(module IN LISTS arg_MODULES)
    list(APPEND objects "$<TARGET_OBJECTS:steer_${module}>")
    if(module STREQUAL "model" AND STEER_CUDA)
      list(APPEND objects "$<TARGET_OBJECTS:steer_cuda_kernels>")
      list(APPEND arg_LINKS CUDA::cudart)
    endif()
  endforeach()
  set(target steer_component_${component})
  add_library(${target} ${objects})
  add_library(steer::${component} ALIAS ${target})
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX EXPORT_NAME ${component} OUTPUT_NAME steer_${component}
                        VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  target_link_libraries(${target} PUBLIC steer_common ${below}
                        PRIVATE steer::dep_openmp Threads::Threads ${arg_LINKS})
  # A shared library shows steer's own names only, and finds those beside it wherever they were moved to.
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "SHARED_LIBRARY" AND NOT APPLE)
    set(map "${PROJECT_SOURCE_DIR}/cmake/steer.map")
    target_link_options(${target} PRIVATE "LINKER:--version-script=${map}")
    set_target_properties(${target} PROPERTIES LINK_DEPENDS "${map}" INSTALL_RPATH "$ORIGIN")
  endif()
endfunction()

function(steer_add_library)
  steer_add_component(stats "" MODULES core stats LINKS steer::dep_xxhash)
  steer_add_component(core steer_component_stats MODULES io text model sae steering generate features
                      LINKS ZLIB::ZLIB steer::dep_sentencepiece steer::dep_pcre2 steer::dep_xxhash)
  steer_add_component(eval steer_component_core MODULES eval LINKS ZLIB::ZLIB OpenSSL::SSL steer::dep_httplib)
  steer_add_component(serve steer_component_core MODULES serve LINKS OpenSSL::SSL steer::dep_httplib steer::dep_zstd)
  add_library(steer_all INTERFACE)
  target_link_libraries(steer_all INTERFACE steer_component_eval)
  add_library(steer::steer ALIAS steer_all)
  add_custom_target(steer DEPENDS steer_component_serve steer_component_eval steer_component_core steer_component_stats)
endfunction()

# Objects and libraries of a module and of all below it, for that module's tests.
function(steer_link_up_to target module)
  foreach(m IN LISTS STEER_MODULES)
    if(TARGET steer_${m})
      target_sources(${target} PRIVATE "$<TARGET_OBJECTS:steer_${m}>")
    endif()
    if(m STREQUAL "model" AND STEER_CUDA)
      target_sources(${target} PRIVATE "$<TARGET_OBJECTS:steer_cuda_kernels>")
      target_link_libraries(${target} PRIVATE CUDA::cudart)
    endif()
    if(m STREQUAL module)
      break()
    endif()
  endforeach()
  target_link_libraries(${target} PRIVATE steer_common ${STEER_PRIVATE_LIBRARIES})
endfunction()
