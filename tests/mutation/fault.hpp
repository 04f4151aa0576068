#pragma once
// What run.py plants: every expression computes what it says, or with STEER_FAULT=<number> in the environment what a
// typical mistake would compute in its place. The values stand between the operands, a < less_or_equal(7) > b, so that
// the operator's own precedence and associativity hold.

#include <cstdlib>
#include <initializer_list>

namespace steer_fault {

inline bool on(int number) {
  static const int active = std::getenv("STEER_FAULT") ? std::atoi(std::getenv("STEER_FAULT")) : -1;
  return number == active;
}

template <class A, class Fault>
struct Held {
  const A& a;
  Fault fault;
};

#define STEER_FAULT_OPERATOR(name, first, second, right, wrong)         \
  struct name {                                                         \
    int number;                                                         \
  };                                                                    \
  template <class A>                                                    \
  constexpr Held<A, name> operator first(const A& a, name fault) {      \
    return {a, fault};                                                  \
  }                                                                     \
  template <class A, class B>                                           \
  constexpr auto operator second(Held<A, name> held, const B& b) {      \
    return on(held.fault.number) ? (held.a wrong b) : (held.a right b); \
  }

STEER_FAULT_OPERATOR(less, <, >, <, <=)
STEER_FAULT_OPERATOR(greater, >, >, >, >=)
STEER_FAULT_OPERATOR(less_equal, <=, <=, <=, <)
STEER_FAULT_OPERATOR(greater_equal, >=, >=, >=, >)
STEER_FAULT_OPERATOR(equal, ==, ==, ==, !=)
STEER_FAULT_OPERATOR(unequal, !=, !=, !=, ==)
STEER_FAULT_OPERATOR(plus, +, +, +, -)
STEER_FAULT_OPERATOR(minus, -, -, -, +)
STEER_FAULT_OPERATOR(times, *, *, *, /)
STEER_FAULT_OPERATOR(over, /, /, /, *)
#undef STEER_FAULT_OPERATOR

/// `not_lost{7} % !x`.
struct not_lost {
  int number;
};
inline bool operator%(not_lost fault, bool value) { return value != on(fault.number); }

/// `sum += sum_lost{7} + x`.
struct sum_lost {
  int number;
};
template <class B>
struct Sum {
  const B& b;
  int number;
};
template <class B>
constexpr Sum<B> operator+(sum_lost fault, const B& b) {
  return {b, fault.number};
}
template <class A, class B>
constexpr A& operator+=(A& a, Sum<B> sum) {
  if (on(sum.number))
    a = A(sum.b);
  else
    a += sum.b;
  return a;
}

struct smaller {
  int number;
  template <class T>
  constexpr T operator()(const T& a, const T& b) const {
    return (a < b) != on(number) ? a : b;
  }
};
struct larger {
  int number;
  template <class T>
  constexpr T operator()(const T& a, const T& b) const {
    return (a > b) != on(number) ? a : b;
  }
};

inline int next(int number, int value) { return on(number) ? value + 1 : value; }
inline bool flip(int number, bool value) { return value != on(number); }

}  // namespace steer_fault
