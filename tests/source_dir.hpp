#pragma once

/// The folder of steer's own sources. A function, not a macro of the path, so that a test compiles to the same object
/// in every checkout and comes from the compiler's cache.
const char* steer_source_dir();
#define STEER_SOURCE_DIR steer_source_dir()
