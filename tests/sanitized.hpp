#pragma once
// Which sanitizer this is compiled with: gcc says it by a macro, clang by a feature.

#if defined(__has_feature)
#define STEER_HAS_SANITIZER(name) __has_feature(name)
#else
#define STEER_HAS_SANITIZER(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || STEER_HAS_SANITIZER(address_sanitizer)
#define STEER_ADDRESS_SANITIZER
#endif
#if defined(__SANITIZE_THREAD__) || STEER_HAS_SANITIZER(thread_sanitizer)
#define STEER_THREAD_SANITIZER
#endif
