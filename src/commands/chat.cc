#include "commands/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/environment_variable.h"
#include "base/text.h"
#include "chat/chat.h"
#include "commands/open_model.h"
#include "engine_api/engine_loader.h"

namespace bitctl {
namespace {

// As early as our own code runs; only the dynamic linker came before.
const Mono g_started = std::chrono::steady_clock::now();

std::string check_duration(const std::string& text) {
  return parse_duration(text) ? "" : "not a duration such as 30s or 5m: " + text;
}

std::string check_url(const std::string& text) {
  const bool is_url = text.starts_with("http://") || text.starts_with("https://");
  return is_url ? "" : "not an http:// or https:// address: " + text;
}

std::string check_is_set(const std::string& name) {
  return environment_variable(name.c_str()).empty() ? "no such environment variable: " + name : "";
}

// --top-p for top_p, into options.sampling. CLI11's own Range takes NaN.
void add_sampling_options(CLI::App& chat, ChatOptions& options) {
  for (const SamplingParameter& parameter : sampling_parameters()) {
    std::string flag = fmt::format("--{}", parameter.name);
    std::replace(flag.begin(), flag.end(), '_', '-');
    const auto check = [&parameter](const std::string& text) {
      return value_of(parameter, text)
                 ? ""
                 : fmt::format("not a {}number from {:g} to {:g}: {}", parameter.whole ? "whole " : "",
                               parameter.lowest, parameter.highest, text);
    };
    chat.add_option_function<std::string>(
            flag,
            [&parameter, &options](const std::string& text) {
              options.sampling[std::string(parameter.name)] = *value_of(parameter, text);
            },
            std::string(parameter.help))
        ->check(CLI::Validator(check, fmt::format("in [{:g} - {:g}]", parameter.lowest, parameter.highest)));
  }
}

}  // namespace

void add_chat_command(CLI::App& app, Action& action, ModelOpener opener) {
  auto options = std::make_shared<ChatOptions>();
  auto lock_timeout = std::make_shared<std::string>("30s");
  auto no_mmap = std::make_shared<bool>(false);
  CLI::App* chat = app.add_subcommand("chat", "Talk to a model");
  chat->add_option(
      "path,--model", options->model.path,
      "A .safetensors file, the folder of a model, a run, or a name on the Hugging Face hub; the "
      "newest finished run where left out");
  chat->add_option("--step", options->model.step, "Of a run: the checkpoint of this step");
  chat->add_option("-p,--prompt", options->prompt,
                   "One answer to this (and to what standard input holds), then the end");
  chat->add_flag_callback(
          "--lines", [options] { options->input = ChatInput::lines; },
          "Each line of standard input is a prompt of one conversation")
      ->excludes("--prompt");
  chat->add_flag_callback(
          "--jsonl", [options] { options->input = ChatInput::jsonl; },
          "Messages as JSON lines on standard input, events as JSON lines on standard output")
      ->excludes("--prompt", "--lines");
  chat->add_option("--system", options->system, "System prompt");
  chat->add_option("--template", options->chat_template,
                   "chatml, or none: each prompt is continued as plain text. The model's own where left out")
      ->check(CLI::IsMember({"chatml", "none"}));
  add_sampling_options(*chat, *options);
  chat->add_option(
      "--seed", options->seed,
      "The same seed gives the same answers; it, --top-k and the -p's sample, at temperature 1 where none "
      "is known");
  chat->add_option("--submit", options->enter_sends,
                   "Which key sends: enter swaps Enter with the keys that send")
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, bool>{{"enter", true}, {"ctrl-enter", false}}))
      ->option_text("enter|ctrl-enter");
  chat->add_flag("--continue", options->go_on, "Go on with the conversation that was begun last");
  chat->add_option("--context", options->when_full,
                   "Where a conversation outgrows the context: drop its oldest messages, or stop")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, WhenFull>{{"drop", WhenFull::drop}, {"stop", WhenFull::stop}}))
      ->option_text("drop|stop");
  chat->add_flag("--no-wait", options->no_wait,
                 "A prompt fails with model_not_ready instead of waiting for the model");
  chat->add_flag("--offline", options->offline, "Use nothing but what is on this machine");
  CLI::Option* remote =
      chat->add_option(
              "--remote", options->remote.url,
              "An OpenAI-compatible endpoint (https://host/v1) that answers what is asked before the model "
              "is ready")
          ->check(check_url)
          ->excludes("--offline");
  chat->add_option("--remote-model", options->remote.model,
                   "Its model; the first that it names where left out")
      ->needs(remote);
  chat->add_option("--remote-key-env", options->remote.key_env, "The environment variable that holds its key")
      ->needs(remote)
      ->check(check_is_set)
      ->capture_default_str();
  chat->add_option(
          "--engine", options->open.engine,
          "native; torch: the reference, for Llama-like models; transformers: any architecture that it "
          "knows, slower. native where left out, and transformers where that cannot")
      ->check(CLI::IsMember({"native", "torch", "transformers"}));
  chat->add_option("--base-model", options->open.base_model,
                   "What a LoRA adapter goes on, named like a model; else its adapter_config.json says it");
  chat->add_option("--device", options->open.device, "auto, cpu or cuda:N, which transformers takes")
      ->capture_default_str();
  chat->add_option(
          "--max-context", options->open.max_context,
          "Longest conversation, in tokens; its cache takes memory. The model's own limit where left out")
      ->check(CLI::PositiveNumber);
  chat->add_option("--kv", options->open.kv,
                   "How keys and values are kept: float32, bf16, or int8 with a scale a row, half of bf16; "
                   "bf16 for bf16 weights, else float32 where left out")
      ->check(CLI::IsMember({"float32", "bf16", "int8"}));
  chat->add_flag("--no-mmap", *no_mmap, "Read the weights into memory instead of mapping the file");
  chat->add_option("--nice", options->nice,
                   "How much it gives way to other sessions, 0 to 19; a training loses nearly nothing at 19. "
                   "Half their share where left out")
      ->check(CLI::Range(0, 19));
  chat->add_option("--lock-timeout", *lock_timeout,
                   "How long to wait for a checkpoint that is being committed")
      ->check(check_duration)
      ->capture_default_str();
  chat->add_flag("--verbose", options->verbose, "Times and rates");
  chat->callback([&action, options, lock_timeout, no_mmap, opener = std::move(opener)] {
    options->open.map = !*no_mmap;
    options->open.lock_limit = *parse_duration(*lock_timeout);
    action = [options, opener] {
      prepare_engine_environment();
      return run_chat(*options, opener, g_started);
    };
  });
}

void add_chat_command(CLI::App& app, Action& action) { add_chat_command(app, action, open_model); }

}  // namespace bitctl
