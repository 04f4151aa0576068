#pragma once
// The four normalisation forms of Unicode (UAX 15).

#include "text/mapped_text.hpp"

namespace steer::text::detail {

struct NormalForm {
  bool compatible = false;  ///< NFKC, NFKD
  bool composed = true;     ///< NFC, NFKC
};

/// Brings `text` (valid UTF-8) into the form.
void normalize(MappedText& text, NormalForm form);

}  // namespace steer::text::detail
