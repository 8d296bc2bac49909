// The speed of llama.cpp behind a long text, without reading all of it: decoding one token at a time, and one prefill
// batch of 2048 tokens, behind N tokens whose keys and values are copies of those of the first 512.
//
//   behind MODEL.gguf --behind N [--what decode,window] [--threads 2] [--flash on|off|auto] [--ubatch 512,2048]
//          [--rounds 3] [--tokens 16] [--step]
//
// Prints one JSON object: seconds of each round, and tokens a second of the median, for `decode` (a round: --tokens
// single tokens) and for `window` with each --ubatch (a round: one batch of 2048 tokens, logits of the last).
//
// How the time of a step depends on the cache is by its size and not by its contents. So 512 random tokens are decoded
// once, and their state is restored to a second sequence, shifted to the next 512 positions and joined to the first
// sequence, until N are there (llama_state_seq_set_data, llama_memory_seq_add, llama_memory_seq_cp). The shift turns
// keys to their new positions before the first step, which does not count. --step decodes N tokens in batches of 2048
// instead, as llama-bench -d does: to compare. Everything else is as in llama-bench, with its default settings.
// Built by bench/peers/build-llama-cpp.
#include <ggml-cpu.h>
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int kPiece = 512;    // tokens that are decoded and then copied
constexpr int kWindow = 2048;  // tokens in a prefill batch

struct Options {
  std::string model;
  int behind = 0;
  bool decode = true;
  bool window = true;
  int threads = 2;
  llama_flash_attn_type flash = LLAMA_FLASH_ATTN_TYPE_AUTO;
  std::vector<int> ubatches = {512, 2048};
  int rounds = 3;
  int tokens = 16;
  bool step = false;
};

[[noreturn]] void fail(const std::string& message) {
  throw std::runtime_error(message);
}

int count_of(const std::string& option, const std::string& text, int least) {
  std::size_t end = 0;
  int count = -1;
  try {
    count = std::stoi(text, &end);
  } catch (const std::logic_error&) {
  }
  if (end != text.size() || count < least) {
    fail(option + " " + text + ": expected a whole number from " + std::to_string(least));
  }
  return count;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

Options read(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name.rfind("--", 0) != 0) {
      options.model = name;
      continue;
    }
    if (name == "--step") {
      options.step = true;
      continue;
    }
    if (++i == argc) fail(name + ": expected a value");
    const std::string value = argv[i];
    if (name == "--behind") {
      options.behind = count_of(name, value, kPiece);
    } else if (name == "--what") {
      options.decode = options.window = false;
      for (const std::string& what : split(value)) {
        if (what != "decode" && what != "window") fail("--what " + what + ": expected decode or window");
        (what == "decode" ? options.decode : options.window) = true;
      }
    } else if (name == "--threads") {
      options.threads = count_of(name, value, 1);
    } else if (name == "--flash") {
      if (value != "on" && value != "off" && value != "auto") fail("--flash " + value + ": expected on, off or auto");
      options.flash = value == "on"    ? LLAMA_FLASH_ATTN_TYPE_ENABLED
                      : value == "off" ? LLAMA_FLASH_ATTN_TYPE_DISABLED
                                       : LLAMA_FLASH_ATTN_TYPE_AUTO;
    } else if (name == "--ubatch") {
      options.ubatches.clear();
      for (const std::string& each : split(value)) options.ubatches.push_back(count_of(name, each, 1));
    } else if (name == "--rounds") {
      options.rounds = count_of(name, value, 1);
    } else if (name == "--tokens") {
      options.tokens = count_of(name, value, 1);
    } else {
      fail(name + ": no such option");
    }
  }
  if (options.model.empty()) fail("usage: behind MODEL.gguf --behind N; see the beginning of behind.cpp");
  if (options.behind % kPiece != 0 || options.behind == 0) {
    fail("--behind " + std::to_string(options.behind) + ": expected a multiple of " + std::to_string(kPiece));
  }
  return options;
}

using Model = std::unique_ptr<llama_model, decltype(&llama_model_free)>;
using Threads = std::unique_ptr<ggml_threadpool, decltype(&ggml_threadpool_free)>;

/// A context with `behind` tokens in its cache, and what is timed there.
class Behind {
 public:
  Behind(const Options& options, llama_model* model, ggml_threadpool* threads, int ubatch, int more)
      : behind_(options.behind), vocabulary_(llama_vocab_n_tokens(llama_model_get_vocab(model))) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<std::uint32_t>(behind_ + more);
    params.n_batch = kWindow;
    params.n_ubatch = static_cast<std::uint32_t>(ubatch);
    params.n_seq_max = 2;      // the second one only while copies are made
    params.kv_unified = true;  // in the cells that the first one uses
    params.n_threads = params.n_threads_batch = options.threads;
    params.flash_attn_type = options.flash;
    context_.reset(llama_init_from_model(model, params));
    if (!context_) fail("llama.cpp made no context: too little memory?");
    llama_attach_threadpool(context_.get(), threads, nullptr);
    if (options.step) {
      for (int done = 0; done < behind_; done += kWindow) decode(std::min(kWindow, behind_ - done));
    } else {
      fill_with_copies();
    }
    if (llama_memory_seq_pos_max(memory(), 0) != behind_ - 1) fail("the cache does not end where it should");
    if (llama_memory_seq_pos_min(memory(), 0) != 0) fail("the cache does not begin where it should");
    single_tokens(1);  // turns the copied keys
    forget();
  }

  double single_tokens(int tokens) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < tokens; ++i) decode(1);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  double window() {
    const auto begin = std::chrono::steady_clock::now();
    decode(kWindow);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  /// Forgets everything after the first `behind` tokens.
  void forget() {
    if (!llama_memory_seq_rm(memory(), 0, behind_, -1)) fail("llama_memory_seq_rm refused");
  }

 private:
  [[nodiscard]] llama_memory_t memory() const { return llama_get_memory(context_.get()); }

  /// Random tokens after those of sequence 0, logits of the last.
  void decode(int tokens) {
    std::vector<llama_token> ids(static_cast<std::size_t>(tokens));
    std::uniform_int_distribution<llama_token> any(3, vocabulary_ - 1);
    for (llama_token& id : ids) id = any(random_);
    if (llama_decode(context_.get(), llama_batch_get_one(ids.data(), tokens)) != 0) fail("llama_decode failed");
    llama_synchronize(context_.get());
  }

  void fill_with_copies() {
    decode(kPiece);
    std::vector<std::uint8_t> state(llama_state_seq_get_size(context_.get(), 0));
    if (llama_state_seq_get_data(context_.get(), state.data(), state.size(), 0) != state.size()) {
      fail("llama_state_seq_get_data gave another size than llama_state_seq_get_size");
    }
    for (int position = kPiece; position < behind_; position += kPiece) {
      if (llama_state_seq_set_data(context_.get(), state.data(), state.size(), 1) == 0) {
        fail("llama_state_seq_set_data refused");
      }
      llama_memory_seq_add(memory(), 1, -1, -1, position);
      llama_memory_seq_cp(memory(), 1, 0, -1, -1);
      if (!llama_memory_seq_rm(memory(), 1, -1, -1)) fail("llama_memory_seq_rm refused");
    }
  }

  int behind_;
  llama_token vocabulary_;
  std::mt19937 random_{1};
  std::unique_ptr<llama_context, decltype(&llama_free)> context_{nullptr, &llama_free};
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

/// "seconds": [...], "tokens_per_second": ...
std::string json_of(const std::vector<double>& seconds, int tokens) {
  std::ostringstream text;
  text << "\"seconds\": [";
  for (std::size_t i = 0; i < seconds.size(); ++i) text << (i == 0 ? "" : ", ") << seconds[i];
  text << "], \"tokens_per_second\": " << tokens / median(seconds);
  return text.str();
}

void run(const Options& options) {
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  llama_backend_init();
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  const Model model(llama_model_load_from_file(options.model.c_str(), params), &llama_model_free);
  if (!model) fail(options.model + ": llama.cpp does not load it");
  ggml_threadpool_params pool = ggml_threadpool_params_default(options.threads);
  pool.poll = 50;  // as llama-bench
  const Threads threads(ggml_threadpool_new(&pool), &ggml_threadpool_free);

  std::ostringstream text;
  text << "{\"behind\": " << options.behind << ", \"filled\": \"" << (options.step ? "step by step" : "copies") << '"';
  text << ", \"flash\": \"" << llama_flash_attn_type_name(options.flash) << "\", \"threads\": " << options.threads;
  if (options.decode) {
    // n_ubatch as in llama-bench: a single token does not depend on it
    Behind behind(options, model.get(), threads.get(), kPiece, std::max(options.tokens, 2));
    std::vector<double> seconds;
    for (int round = 0; round < options.rounds; ++round) {
      seconds.push_back(behind.single_tokens(options.tokens));
      behind.forget();
    }
    text << ", \"decode\": {\"tokens\": " << options.tokens << ", " << json_of(seconds, options.tokens) << '}';
  }
  if (options.window) {
    text << ", \"window\": [";
    for (std::size_t i = 0; i < options.ubatches.size(); ++i) {
      Behind behind(options, model.get(), threads.get(), options.ubatches[i], kWindow);
      std::vector<double> seconds;
      for (int round = 0; round < options.rounds; ++round) {
        seconds.push_back(behind.window());
        behind.forget();
      }
      text << (i == 0 ? "" : ", ") << "{\"tokens\": " << kWindow << ", \"ubatch\": " << options.ubatches[i] << ", "
           << json_of(seconds, kWindow) << '}';
    }
    text << ']';
  }
  std::puts((text.str() + '}').c_str());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(read(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "behind: %s\n", error.what());
    return 1;
  }
}
