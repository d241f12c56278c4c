#include <fmt/format.h>

#include <filesystem>

#include "chat/hub_cache.h"
#include "chat/session.h"

namespace bitctl {
namespace {

namespace event = bootstrap_event;

constexpr Duration kTick = std::chrono::seconds(1);  // a stall is told, too

int small_count(const Json& part, const char* key) {
  return static_cast<int>(std::min<uint64_t>(get_unsigned(part, key).value_or(0), 1'000'000));
}

}  // namespace

void ChatSession::on_only_on_hub(const OnlyOnHub& missing) {
  const bool came_whole = std::exchange(downloaded_, "") == missing.name;
  if (wanted_ || options_.offline || came_whole) return on_found(fail(ErrorKind::not_found, missing.message));
  loading_ = false;
  const bool switched = std::exchange(switching_, false);
  if (switched && !state_.is<Bootstrap::Ready>()) advance({event::OtherModel{}});
  begin_download(missing, switched && state_.is<Bootstrap::Ready>());
}

void ChatSession::begin_download(const OnlyOnHub& missing, bool beside) {
  const std::string& name = missing.name;
  download_ = Download{.choice = choice_,
                       .beside = beside,
                       .state = {name, Bootstrap::Downloading{}},
                       .message = missing.message};
  if (beside)
    choice_ = before_;
  else
    advance({event::DownloadBegins{name}});
  rate_ = {};
  rate_.saw(loop_.now(), 0);
  std::error_code gone;
  const auto command = worker_command("bitctl.hub", std::filesystem::current_path(gone).string());
  const Status started = command ? hub_.start(*command) : Status(tl::unexpected<Error>(command.error()));
  if (!started) return download_ended(started.error().message);
  tick();
  hub_.ask({{"op", "download"}, {"name", name}, {"cache", hub_cache_folder()}},
           [this](Result<Json> reply) { on_download(std::move(reply)); });
  if (beside) {
    view_.warning(fmt::format("⏳ Downloading {} (first time only)...", name));
    next_turn();  // the old model answers meanwhile
  }
}

void ChatSession::tick() {
  view_.progressed();
  download_->tick = loop_.call_after(kTick, [this] { tick(); });
}

void ChatSession::on_download(Result<Json> reply) {
  if (!reply) return download_ended(reply.error().message);
  if (reply->value("offline", Json()) == true) {
    if (download_->beside) return download_ended(state_text({"", Bootstrap::NotAvailable{}}));
    view_.warning(download_->message);
    advance({event::NotHere{}});
    return download_ended("");
  }
  if (reply->value("more", Json()) != true) return download_ended("");
  if (const std::string note = get_text(*reply, "note"); !note.empty()) return view_.warning("⏳ " + note);
  const event::FileDownloads far{get_text(*reply, "file"), small_count(*reply, "index"),
                                 small_count(*reply, "count"), get_unsigned(*reply, "bytes").value_or(0),
                                 get_unsigned(*reply, "total").value_or(0)};
  rate_.saw(loop_.now(), get_unsigned(*reply, "fetched").value_or(0));
  download_->state = next_bootstrap(download_->state, far);
  if (!download_->beside) advance({far});
  view_.progressed();
}

// `failure` is empty where it has come whole, and where the state says already why it has not.
void ChatSession::download_ended(const std::string& failure) {
  if (!download_) return;
  const Download ended = *std::exchange(download_, std::nullopt);
  if (ended.tick) loop_.cancel(*ended.tick);
  hub_.end();
  if (failure.empty() && !state_.is<Bootstrap::NotAvailable>()) {
    downloaded_ = ended.state.model;
    return ended.beside ? use_model(ended.choice) : begin_load();
  }
  if (ended.beside) {
    unfinished_ = ended.choice;
    view_.warning(fmt::format("✗ {}: {}; /retry goes on with it", ended.state.model, failure));
  } else if (!failure.empty()) {
    fail_load(failure);
  }
  view_.progressed();
}

std::optional<Bootstrap> ChatSession::download() const {
  return download_ ? std::optional(download_->state) : std::nullopt;
}

std::string ChatSession::progress() const {
  const Bootstrap& state = download_ ? download_->state : state_;
  if (const auto* loading = std::get_if<Bootstrap::Loading>(&state.stage); loading && loading->total > 0)
    return transfer_text(loading->bytes, loading->total, rate_, loop_.now());
  const auto* downloading = std::get_if<Bootstrap::Downloading>(&state.stage);
  return downloading ? transfer_text(downloading->bytes, downloading->total, rate_, loop_.now()) : "";
}

}  // namespace bitctl
