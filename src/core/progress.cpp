#include <steer/core/progress.hpp>

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <mutex>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"

namespace steer {
namespace {
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kBetweenLines{5};

std::string duration_text(double seconds) {
  const auto s = std::llround(seconds);
  if (s < 60) return format_text("{}s", s);
  if (s < 3600) return format_text("{}m{:02}s", s / 60, s % 60);
  return format_text("{}h{:02}m", s / 3600, s / 60 % 60);
}
}  // namespace

struct Progress::State {
  std::mutex mutex;
  std::string title, remark;
  std::int64_t total = 0, done = 0, resumed = 0;
  ProgressStyle style = ProgressStyle::silent;
  std::FILE* stream = nullptr;
  Clock::time_point start = Clock::now(), drawn{};
  std::int64_t drawn_done = -1;  ///< `done` and `remark` as they were drawn last
  std::string drawn_remark;
  bool finished = false;
  int depth = 0;  ///< 1: a part, 2: a part of a part

  ~State() { draw_last(); }

  std::string text() const {
    const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    const double rate = elapsed > 0 ? static_cast<double>(done - resumed) / elapsed : 0;
    std::string line = total > 0 ? format_text("{} {}/{} ({:.0f}%)", title, done, total,
                                               100.0 * static_cast<double>(done) / static_cast<double>(total))
                                 : format_text("{} {}", title, done);
    line += format_text(" | {} | {:.3g}/s", duration_text(elapsed), rate);
    if (total > done && rate > 0)
      line += format_text(" | {} left", duration_text(static_cast<double>(total - done) / rate));
    if (!remark.empty()) line += " | " + remark;
    return line;
  }

  void draw(bool last) {
    if (style == ProgressStyle::silent) return;
    const auto now = Clock::now();
    const std::chrono::milliseconds pause =
        style == ProgressStyle::bar ? std::chrono::milliseconds(100) : kBetweenLines;
    if (!last && now - drawn < pause) return;
    if (depth > 1 && now - start < kBetweenLines) {
      if (style == ProgressStyle::bar && last) write("\r\033[K");
      if (style == ProgressStyle::lines || last) return;
    }
    const bool shown = drawn_done == done && drawn_remark == remark;
    if (last && shown && style == ProgressStyle::lines) return;
    drawn = now;
    drawn_done = done;
    drawn_remark = remark;
    if (style == ProgressStyle::bar) {
      constexpr int width = 24;
      const int filled = total > 0 ? static_cast<int>(width * std::min(done, total) / total) : 0;
      std::string bar;
      if (total > 0) bar = format_text("[{:#<{}}{:.<{}}] ", "", filled, "", width - filled);
      write(format_text("\r\033[K{}{}{}", bar, text(), last ? "\n" : ""));
    } else {
      write(text() + "\n");
    }
  }

  /// A full disk or a closed terminal under the display is no reason to end the work.
  void write(const std::string& line) const {
    std::fwrite(line.data(), 1, line.size(), stream);
    std::fflush(stream);
  }

  void draw_last() {
    if (std::exchange(finished, true)) return;
    if (total > 0 || done > 0) draw(true);  // one that only had parts has nothing to say
  }
};

Progress::Progress() : state_(std::make_shared<State>()) {}

Progress::Progress(std::string_view title, std::int64_t total, ProgressStyle style, std::FILE* stream) : Progress() {
  require(total >= 0, ErrorCode::argument, "Progress", "expected a total of 0 (unknown) or more but got {}", total);
  require(stream != nullptr, ErrorCode::argument, "Progress", "expected an open stream but got a null pointer");
  state_->title = title;
  state_->total = total;
  state_->stream = stream;
  state_->style = style != ProgressStyle::automatic ? style
                  : isatty(fileno(stream))          ? ProgressStyle::bar
                                                    : ProgressStyle::lines;
}

Progress::~Progress() = default;
Progress::Progress(const Progress&) = default;
Progress& Progress::operator=(const Progress&) = default;

Progress Progress::part(std::string_view title, std::int64_t total) const {
  if (state_->style == ProgressStyle::silent) return {};
  Progress part(title, total, state_->style, state_->stream);
  part.state_->depth = state_->depth + 1;
  return part;
}

void Progress::advance(std::int64_t items) {
  require(items >= 0, ErrorCode::argument, "Progress::advance", "expected 0 or more items but got {}", items);
  std::lock_guard lock(state_->mutex);
  state_->done += items;
  if (!state_->finished) state_->draw(false);
}

void Progress::resume_at(std::int64_t items) {
  require(items >= 0, ErrorCode::argument, "Progress::resume_at", "expected 0 or more items but got {}", items);
  std::lock_guard lock(state_->mutex);
  state_->done += items - state_->resumed;
  state_->resumed = items;
}

void Progress::note(std::string_view text) {
  std::lock_guard lock(state_->mutex);
  state_->remark = text;
}

void Progress::finish() {
  std::lock_guard lock(state_->mutex);
  state_->draw_last();
}

std::int64_t Progress::done() const {
  std::lock_guard lock(state_->mutex);
  return state_->done;
}

}  // namespace steer
