#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include <steer/core/enum.hpp>

namespace steer {

/// How progress is shown.
enum class ProgressStyle {
  automatic,  ///< a bar when the stream is a terminal, lines when it is not
  bar,        ///< one line, redrawn
  lines,      ///< a new line at most every few seconds
  silent,     ///< nothing
};

template <>
struct EnumTable<ProgressStyle> {
  static constexpr std::string_view name = "progress style";
  static constexpr EnumEntry<ProgressStyle> entries[] = {{ProgressStyle::automatic, "automatic"},
                                                         {ProgressStyle::bar, "bar"},
                                                         {ProgressStyle::lines, "lines"},
                                                         {ProgressStyle::silent, "silent"}};
};

/// Shows how far a long job is: share done, rate, time left. The only thing in the library that prints.
/// Copies share one display. All members may be called from several threads at once.
class Progress {
 public:
  /// Shows nothing: the default of every option struct.
  Progress();
  /// @param title   what is being done, a few words.
  /// @param total   number of items; 0 when unknown. @throws Error(argument) if negative.
  /// @param stream  where to write; stderr keeps stdout clean for results.
  Progress(std::string_view title, std::int64_t total, ProgressStyle style = ProgressStyle::automatic,
           std::FILE* stream = stderr);
  ~Progress();
  Progress(const Progress&);
  Progress& operator=(const Progress&);

  /// A display of the same style on the same stream for a part of the work (silent if this one is). A part of a part
  /// that is over within five seconds leaves no trace.
  Progress part(std::string_view title, std::int64_t total) const;
  /// Counts `items` more as done. @throws Error(argument) if negative.
  void advance(std::int64_t items = 1);
  /// Counts items that an earlier run had done: they count as done, not towards the rate.
  void resume_at(std::int64_t items);
  /// A short remark shown behind the figures, e.g. the current loss.
  void note(std::string_view text);
  /// Draws the final state and ends the line. Called by the last copy's destructor too.
  void finish();
  std::int64_t done() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace steer
