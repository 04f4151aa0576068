// Python's strftime in the C locale, for a time without zone.

#include <fmt/core.h>

#include "core/format_text.hpp"
#include "text/jinja/function.hpp"

namespace steer::text::detail::jinja {
namespace {

constexpr std::string_view weekdays[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
constexpr std::string_view months[] = {"January", "February", "March",     "April",   "May",      "June",
                                       "July",    "August",   "September", "October", "November", "December"};

struct Moment {
  int year;
  unsigned month, day, weekday, day_of_year;  // month and day from 1, weekday from Sunday = 0, day_of_year from 1
  int hour, minute, second;
  std::chrono::sys_days date;
};

Moment moment_of(std::chrono::sys_seconds now) {
  using namespace std::chrono;
  const sys_days date = floor<days>(now);
  const year_month_day calendar(date);
  const hh_mm_ss clock(now - date);
  const sys_days first = calendar.year() / January / 1;
  return {.year = static_cast<int>(calendar.year()),
          .month = static_cast<unsigned>(calendar.month()),
          .day = static_cast<unsigned>(calendar.day()),
          .weekday = weekday(date).c_encoding(),
          .day_of_year = static_cast<unsigned>((date - first).count()) + 1,
          .hour = static_cast<int>(clock.hours().count()),
          .minute = static_cast<int>(clock.minutes().count()),
          .second = static_cast<int>(clock.seconds().count()),
          .date = date};
}

// The year and week of ISO 8601: weeks begin on Monday, the first holds the year's first Thursday.
std::pair<int, unsigned> iso_week(const Moment& at) {
  using namespace std::chrono;
  const sys_days thursday = at.date + days(3 - static_cast<int>((at.weekday + 6) % 7));
  const year_month_day calendar(thursday);
  const sys_days first = calendar.year() / January / 1;
  return {static_cast<int>(calendar.year()), static_cast<unsigned>((thursday - first).count() / 7) + 1};
}

void append(std::string& out, const Moment& at, char field) {
  const int hour12 = (at.hour + 11) % 12 + 1;
  switch (field) {
    case 'a':
      out += weekdays[at.weekday].substr(0, 3);
      break;
    case 'A':
      out += weekdays[at.weekday];
      break;
    case 'b':
    case 'h':
      out += months[at.month - 1].substr(0, 3);
      break;
    case 'B':
      out += months[at.month - 1];
      break;
    case 'c':
      out += format_text("{} {} {:2} {:02}:{:02}:{:02} {}", weekdays[at.weekday].substr(0, 3),
                         months[at.month - 1].substr(0, 3), at.day, at.hour, at.minute, at.second, at.year);
      break;
    case 'C':
      out += format_text("{:02}", at.year / 100);
      break;
    case 'd':
      out += format_text("{:02}", at.day);
      break;
    case 'D':
    case 'x':
      out += format_text("{:02}/{:02}/{:02}", at.month, at.day, at.year % 100);
      break;
    case 'e':
      out += format_text("{:2}", at.day);
      break;
    case 'f':
      out += "000000";
      break;
    case 'F':
      out += format_text("{}-{:02}-{:02}", at.year, at.month, at.day);
      break;
    case 'g':
      out += format_text("{:02}", iso_week(at).first % 100);
      break;
    case 'G':
      out += format_text("{}", iso_week(at).first);
      break;
    case 'H':
      out += format_text("{:02}", at.hour);
      break;
    case 'I':
      out += format_text("{:02}", hour12);
      break;
    case 'j':
      out += format_text("{:03}", at.day_of_year);
      break;
    case 'k':
      out += format_text("{:2}", at.hour);
      break;
    case 'l':
      out += format_text("{:2}", hour12);
      break;
    case 'm':
      out += format_text("{:02}", at.month);
      break;
    case 'M':
      out += format_text("{:02}", at.minute);
      break;
    case 'n':
      out += '\n';
      break;
    case 'p':
      out += at.hour < 12 ? "AM" : "PM";
      break;
    case 'P':
      out += at.hour < 12 ? "am" : "pm";
      break;
    case 'r':
      out += format_text("{:02}:{:02}:{:02} {}", hour12, at.minute, at.second, at.hour < 12 ? "AM" : "PM");
      break;
    case 'R':
      out += format_text("{:02}:{:02}", at.hour, at.minute);
      break;
    case 'S':
      out += format_text("{:02}", at.second);
      break;
    case 't':
      out += '\t';
      break;
    case 'T':
    case 'X':
      out += format_text("{:02}:{:02}:{:02}", at.hour, at.minute, at.second);
      break;
    case 'u':
      out += format_text("{}", (at.weekday + 6) % 7 + 1);
      break;
    case 'U':
      out += format_text("{:02}", (at.day_of_year - 1 + 7 - at.weekday) / 7);
      break;
    case 'V':
      out += format_text("{:02}", iso_week(at).second);
      break;
    case 'w':
      out += format_text("{}", at.weekday);
      break;
    case 'W':
      out += format_text("{:02}", (at.day_of_year - 1 + 7 - (at.weekday + 6) % 7) / 7);
      break;
    case 'y':
      out += format_text("{:02}", at.year % 100);
      break;
    case 'Y':
      out += format_text("{}", at.year);
      break;
    case 'z':
    case 'Z':
      break;
    case '%':
      out += '%';
      break;
    default:
      unsupported("%{} in strftime_now", field);
  }
}

}  // namespace

std::string format_time(std::chrono::sys_seconds now, std::string_view format) {
  const Moment at = moment_of(now);
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    char field = format[++i];
    const bool unpadded = field == '-' && i + 1 < format.size();  // glibc's flag: no zeros or spaces before
    if (unpadded) field = format[++i];
    std::string part;
    append(part, at, field);
    if (unpadded) {
      const std::size_t digit = part.find_first_not_of("0 ");
      part.erase(0, digit == std::string::npos ? part.size() - 1 : digit);
    }
    out += part;
  }
  return out;
}

}  // namespace steer::text::detail::jinja
