
#include <steer/core/error.hpp>
#include <steer/model/audit.hpp>

#include "core/format_text.hpp"

namespace steer {

std::int64_t SteeringAudit::edited() const {
  std::int64_t sum = 0;
  for (const EditAudit& edit : edits) sum += edit.edited;
  return sum;
}

void SteeringAudit::require_fired(std::string_view where) const {
  require(edits.empty() || fired(), ErrorCode::config, where,
          "expected a steering that changes something but no token was edited:\n{}", describe());
}

std::string SteeringAudit::describe() const {
  std::string text = format_text("{:>8} {:>8} {:>8} {:>9} {:>9}  edit\n", "seen", "in scope", "edited", "mean", "max");
  for (const EditAudit& e : edits)
    text += format_text("{:>8} {:>8} {:>8} {:>9.4f} {:>9.4f}  {}\n", e.seen, e.in_scope, e.edited, e.mean_change,
                        e.max_change, e.edit);
  return text;
}

}  // namespace steer
