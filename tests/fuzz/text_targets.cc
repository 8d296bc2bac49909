#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "apps/bench_run/run_file.h"
#include "apps/documents.h"
#include "memory/document_choice.h"
#include "memory/memory_file_writer.h"
#include "runtime/method.h"
#include "runtime/tokenizer.h"
#include "runtime/utf8.h"
#include "tests/fuzz/targets.h"

namespace memlane::fuzz {

namespace {

std::filesystem::path stories() {
  const char* elsewhere = std::getenv("MEMLANE_SOURCE_DIR");
  return std::filesystem::path(elsewhere != nullptr ? elsewhere : MEMLANE_SOURCE_DIR) / "models" / "stories260K";
}

void check_decoding(const Tokenizer& tokenizer, const std::vector<int>& ids) {
  for (const int id : ids) MEMLANE_EXPECTS(id >= 0 && static_cast<std::size_t>(id) < tokenizer.size());
  MEMLANE_EXPECTS(!first_invalid_utf8(tokenizer.decode(ids)));
}

/// A tokenizer gives the same ids however a text is cut.
bool check_encoding(const Tokenizer& tokenizer, std::string_view text) {
  return accepts([&] {
    const std::vector<int> ids = tokenizer.encode(text, false);
    check_decoding(tokenizer, ids);
    MEMLANE_EXPECTS(tokenizer.encode(text, false, 7) == ids);
  });
}

bool check_rope(std::string_view words) {
  RopeScaling base;
  base.original_length = 2048;
  bool read = false;
  for (const std::size_t window : {std::size_t{0}, std::size_t{8192}}) {
    read |= accepts([&] {
      const RopeScaling scaling = parse_rope_scaling("--rope", words, base, window);
      check_rope_scaling(scaling, 16, "--rope");
      const std::string said = to_text(scaling);
      MEMLANE_EXPECTS(to_text(parse_rope_scaling("--rope", said, {}, 0)) == said);
      for (const std::size_t length : {std::size_t{1}, std::size_t{100000}}) {
        for (const double frequency : rope_frequencies(scaling, 16, length).inv_freq) {
          MEMLANE_EXPECTS(std::isfinite(frequency));
        }
      }
    });
  }
  return read;
}

bool check_method(std::string_view words) {
  ModelConfig model;
  model.num_layers = 4;
  model.num_heads = model.num_kv_heads = 2;
  model.head_dim = 16;
  model.max_position_embeddings = 2048;
  model.rope.original_length = 2048;
  model.memory_rope = model.rope;
  MemorySettings base;
  base.mem_layers = {1, 2};
  base.window = base.memory_window = 512;
  base.last_context_length = 100;
  base.rope = base.memory_rope = model.rope;
  return accepts([&] {
    const Method method = Method::parse(words);
    const MethodSettings settings = method.settings(model, base, 20000, 5);
    MEMLANE_EXPECTS(settings.memory.window > 0 && settings.memory.memory_window <= settings.memory.window);
    MEMLANE_EXPECTS(settings.last_context <= 20000);
  });
}

/// A file with names that are like ids, commas and words of choices.
const MemoryFile& library() {
  static const MemoryFile file = [] {
    MemoryFileHeader header;
    header.model_fingerprint = "ab";
    header.shape = {{1}, 1, 2, DType::bf16};
    header.window = 4;
    header.compute = "float32";
    header.lookup = "dense";
    MemoryFileWriter writer = MemoryFileWriter::create(folder() / "library", header);
    for (const char* name : {"a.txt", "1", "a,b", "id:0", "name:a", "", "a.txt"}) {
      writer.begin_document({0, name, "", 10, 5});
    }
    writer.drop_documents(std::vector<std::uint32_t>{5});
    return MemoryFile::open(folder() / "library");
  }();
  return file;
}

}  // namespace

bool tokenizer(Input input) {
  put("tokenizer.model", input);
  return accepts([&] {
    const Tokenizer opened = Tokenizer::open(folder());
    for (const std::string_view sample :
         {"", "Once upon a time", "  two  spaces\n\nand lines ", "\xe2\x96\x81\xf0\x9f\x98\x80<unk></s>\t1 2"}) {
      check_encoding(opened, sample);
    }
    std::vector<int> ids(opened.size());
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int>(i);
    check_decoding(opened, ids);
    accepts([&] { opened.encode("a", true); });
    MEMLANE_EXPECTS(opened.bos_id() < static_cast<int>(opened.size()));
    MEMLANE_EXPECTS(opened.eos_id() < static_cast<int>(opened.size()));
  });
}

bool text(Input input) {
  static const Tokenizer opened = Tokenizer::open(stories());
  const bool encoded = check_encoding(opened, text_of(input));
  const std::vector<int> ids(input.begin(), input.end());
  check_decoding(opened, ids);
  const std::filesystem::path file = put("text", input);
  accepts([&] { check_decoding(opened, read_document(file, "text", opened).ids); });
  accepts([&] { check_decoding(opened, read_ids(file, opened.size())); });
  return encoded;
}

bool words(Input input) {
  const std::string_view all = text_of(input).substr(0, text_of(input).find('\0'));  // as arguments end
  const bool is_rope = check_rope(all), is_method = check_method(all);
  const bool is_choice = accepts([&] {
    const std::vector<std::string> choice = {std::string(all)};
    for (const std::uint32_t id : choose_documents(library(), "--documents", choice)) {
      MEMLANE_EXPECTS(!library().documents().at(id).dropped);
    }
  });
  return is_rope || is_method || is_choice;
}

bool run_file(Input input) {
  const std::filesystem::path file = put("run.json", input);
  return accepts([&] {
    const RunFile run = read_run_file(file);
    MEMLANE_EXPECTS(!run.models.empty() && !run.methods.empty() && !run.experiments.empty());
    accepts([&] { check_inputs(run); });
  });
}

}  // namespace memlane::fuzz
