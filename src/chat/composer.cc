#include "chat/composer.h"

#include <fmt/format.h>

#include <iterator>

#include "chat/graphemes.h"

namespace bitctl {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\n";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

}  // namespace

void Composer::remember(std::vector<std::string> prompts) {
  recalled_ += prompts.size();
  history_.insert(history_.begin(), std::make_move_iterator(prompts.begin()),
                  std::make_move_iterator(prompts.end()));
}

Intention Composer::apply(const Key& key, int width) {
  if (search_ && search(key)) return {};
  if (!enter_sends_) return edit(key, width);
  // What comes as CSI u is Shift+Enter: plain Enter is CR, also where the other keys are told apart.
  if (key.kind == KeyKind::newline && !key.extended) return send();
  if (key.kind == KeyKind::send) return edit({.kind = KeyKind::newline}, width);
  return edit(key, width);
}

Intention Composer::edit(const Key& key, int width) {
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
    case KeyKind::external_editor:
      return {Kind::edit_externally};
    case KeyKind::search:
      search_ = Search{.query = {}, .before = editor_.text(), .at = history_.size()};
      break;
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

bool Composer::search(const Key& key) {
  switch (key.kind) {
    case KeyKind::text:
      search_->query += key.text;
      find(history_.size());
      return true;
    case KeyKind::backspace:
      search_->query.resize(previous_grapheme(search_->query, search_->query.size()));
      find(history_.size());
      return true;
    case KeyKind::search:
      find(search_->at);
      return true;
    case KeyKind::interrupt:
    case KeyKind::external_editor:
      editor_.set(search_->before);
      search_.reset();
      return true;
    case KeyKind::kitty_flags:
    case KeyKind::device_attributes:
      return true;
    default:
      // The text that was found is the one to go on with; Up and Down lead away from its place.
      recalled_ = search_->at;
      draft_ = search_->before;
      search_.reset();
      return key.kind == KeyKind::newline;
  }
}

void Composer::find(size_t below) {
  while (below > 0 && history_[below - 1].find(search_->query) == std::string::npos) --below;
  search_->found = below > 0;
  if (!search_->found) return;
  search_->at = below - 1;
  editor_.set(history_[search_->at]);
}

std::string Composer::search_hint() const {
  if (!search_) return {};
  return fmt::format("{} \"{}\": Ctrl+R older, Enter takes it, Ctrl+C leaves",
                     search_->found ? "prompts with" : "no older prompt with", search_->query);
}

}  // namespace bitctl
