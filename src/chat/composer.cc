#include "chat/composer.h"

namespace bitctl {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\n";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

}  // namespace

Intention Composer::apply(const Key& key, int width) {
  using Kind = Intention::Kind;
  switch (key.kind) {
    case KeyKind::text:
    case KeyKind::paste:
      editor_.insert(key.text);
      break;
    case KeyKind::newline:
      if (editor_.line() == "/send") {
        editor_.remove_line();
        return send();
      }
      editor_.insert("\n");
      break;
    case KeyKind::send:
      return send();
    case KeyKind::end_of_input:
      return trimmed(editor_.text()).empty() ? Intention{Kind::leave} : send();
    case KeyKind::interrupt:
      return {Kind::interrupt};
    case KeyKind::suspend:
      return {Kind::suspend};
    case KeyKind::redraw:
      return {Kind::redraw};
    case KeyKind::backspace:
      editor_.backspace();
      break;
    case KeyKind::erase:
      editor_.erase();
      break;
    case KeyKind::left:
      editor_.left();
      break;
    case KeyKind::right:
      editor_.right();
      break;
    case KeyKind::up:
      if (!editor_.up(width)) recall(-1);
      break;
    case KeyKind::down:
      if (!editor_.down(width)) recall(+1);
      break;
    case KeyKind::home:
      editor_.home();
      break;
    case KeyKind::end:
      editor_.end();
      break;
    case KeyKind::word_left:
      editor_.word_left();
      break;
    case KeyKind::word_right:
      editor_.word_right();
      break;
    case KeyKind::kill_word:
      editor_.kill_word();
      break;
    case KeyKind::kill_to_start:
      editor_.kill_to_start();
      break;
    case KeyKind::kill_to_end:
      editor_.kill_to_end();
      break;
    case KeyKind::kitty_flags:
    case KeyKind::device_attributes:
      break;
  }
  return {};
}

void Composer::clear() {
  editor_.set("");
  recalled_ = history_.size();
}

Intention Composer::send() {
  Intention intention{Intention::Kind::send, std::string(trimmed(editor_.text()))};
  if (intention.text.empty()) return {};
  if (history_.empty() || history_.back() != intention.text) history_.push_back(intention.text);
  clear();
  return intention;
}

void Composer::recall(int by) {
  if ((by < 0 && recalled_ == 0) || (by > 0 && recalled_ == history_.size())) return;
  if (recalled_ == history_.size()) draft_ = editor_.text();
  recalled_ += static_cast<size_t>(by);
  editor_.set(recalled_ == history_.size() ? draft_ : history_[recalled_]);
}

}  // namespace bitctl
