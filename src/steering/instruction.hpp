#pragma once
// What every edit becomes. An edit reads numbers from a token's activation h, says by how much each should change, and
// writes the changes back along rows of a table:
//
//     h <- alpha h + sum_i d_i out w_i        d = changes of the readings, in units of 1 or of |h| on arrival
//
// The arithmetic on readings is written once, over the scalar T: `float` for one token, at::Tensor for a column of them
// (plan_aten.cpp says what `Math` is there), and whatever a device's compiler calls a float. Nothing here needs
// libtorch, and nothing knows one kind of edit from another.

#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__CUDACC__)
#define STEER_HOST_DEVICE __host__ __device__
#else
#define STEER_HOST_DEVICE
#endif

namespace steer::steering::detail {

/// Where a register's value comes from.
enum class Reading : std::uint8_t {
  nothing,  ///< 0: the change does not depend on h
  dot,      ///< h . read + offset
  feature,  ///< an activation function of one dot product, see `value_of`
  encode,   ///< the feature of an SAE whose features compete: a full encode gives it
  norm,     ///< |h|; its change scales h (alpha) and is written nowhere else
};

/// One number read from h, and where its change is written.
struct Register {
  Reading reading = Reading::nothing;
  int read = -1;             ///< row of the table
  int write = -1;            ///< row of the table; -1: none, or `norm`
  float write_norm = 0;      ///< |w|; 1 for `norm`
  std::int64_t feature = 0;  ///< `encode`: its number in the SAE
  float offset = 0, gain = 1, bias = 0, gate_bias = 0, threshold = 0;
  float read_sum = 0;  ///< sum of the row read: takes the mean off a dot product with the raw token
};

/// By how much registers should change: d_i = s (sum_j gain_ij x_j + constant u), where the wanted value x_i + d_i / s
/// is kept within [low u, high u]. u is 1, or |h on arrival| / |w out|: then d w out has the length of that share of
/// |h|.
struct Change {
  int first = 0;  ///< the registers first, and first + 1 if `pair` (whose rows are orthonormal)
  bool pair = false;
  bool by_norm = false;  ///< which u
  float gain[2][2] = {};
  float constant = 0;
  float low = -std::numeric_limits<float>::infinity(), high = std::numeric_limits<float>::infinity();
  float strength = 1;
};

/// The values at which a condition holds: above < x <= at_most, once it held `release` more on both sides; `sticky`:
/// for good.
struct Band {
  double above = -std::numeric_limits<double>::infinity(), at_most = std::numeric_limits<double>::infinity();
  double release = 0;
  bool sticky = false;

  /// @param before  whether it held at the token before.
  STEER_HOST_DEVICE bool holds(double x, bool before) const {
    if (before && (sticky || (x > above - release && x <= at_most + release))) return true;
    return x > above && x <= at_most;
  }
};

template <class T>
struct Math;
template <>
struct Math<float> {
  STEER_HOST_DEVICE static float larger(float a, float b) { return a > b ? a : b; }
  STEER_HOST_DEVICE static float smaller(float a, float b) { return a < b ? a : b; }
  STEER_HOST_DEVICE static float where(bool c, float a, float b) { return c ? a : b; }
};

/// A register's value from the dot product of its row with the raw token, whose normalised form (an SAE's) is
/// x~ = (h - shift) / in. With y = x~ . read + offset, a feature is max(gain y + bias, 0) where y + gate_bias exceeds
/// the threshold, else 0: relu, jumprelu and gated SAEs alike, and gates.
template <class T>
STEER_HOST_DEVICE T value_of(const Register& r, const T& dot, const T& shift, const T& in) {
  if (r.reading == Reading::dot) return dot + r.offset;
  const T y = (dot - shift * r.read_sum) / in + r.offset;
  return Math<T>::where(y + r.gate_bias > r.threshold, Math<T>::larger(r.gain * y + r.bias, 0.f), 0.f);
}

/// The change of register `first + i`, given the values x of the registers from `first` on.
template <class T>
STEER_HOST_DEVICE T change_of(const Change& c, int i, const T* x, const T& unit) {
  T d = c.gain[i][0] * x[0];
  if (c.pair) d = d + c.gain[i][1] * x[1];
  if (c.constant != 0) d = d + c.constant * unit;
  if (std::isfinite(c.low)) d = Math<T>::larger(x[i] + d, c.low * unit) - x[i];
  if (std::isfinite(c.high)) d = Math<T>::smaller(x[i] + d, c.high * unit) - x[i];
  return c.strength == 1 ? d : c.strength * d;
}

}  // namespace steer::steering::detail
