// Foreign text on its way to a terminal or a message: what could steer the terminal is shown instead of sent.
#pragma once

#include <string>
#include <string_view>

namespace bitctl {

enum class Newlines { show, keep };

// C0 controls and DEL in caret notation (^[), C1 controls, bidi controls and line separators as ⟦U+202E⟧,
// bytes that are not UTF-8 as \x9b. With Newlines::keep, '\n' and '\t' pass. The result is valid UTF-8.
std::string visible_text(std::string_view text, Newlines newlines = Newlines::show);

// Valid UTF-8: each broken byte becomes U+FFFD, nothing else changes. For text on its way into JSON.
std::string valid_utf8(std::string_view text);

// At most `limit` bytes, cut between code points, "…" appended where something was cut.
std::string shortened(std::string_view text, size_t limit);

// Reads one code point at `at`; returns its length in bytes, 0 where the bytes there are not UTF-8
// (overlong forms, surrogates and values above U+10FFFF are not).
size_t decode_utf8(std::string_view text, size_t at, char32_t& code_point);

}  // namespace bitctl
