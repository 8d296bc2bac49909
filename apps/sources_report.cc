#include "apps/sources_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "apps/output.h"
#include "runtime/sources.h"

namespace memlane {

namespace {

constexpr std::size_t kContext = 16;  // entries shown on either side of a span

nlohmann::json describe(const SourceSpan& span, const DocumentInfo& info, const DocumentText& text) {
  const DocumentText::Range range = text.range_of(span.first, span.count);
  const std::size_t end = span.first + span.count;
  const std::size_t before = std::min(span.first, kContext);
  const std::size_t after = std::min(text.entries() - end, kContext);
  const DocumentText::Range around = text.range_of(span.first - before, before + span.count + after);
  return {{"document", info.id},
          {"name", info.name},
          {"weight", span.weight},
          {"peak_weight", span.peak},
          {"first_entry", span.first},
          {"entries", span.count},
          {"byte_begin", range.begin},
          {"byte_end", range.end},
          {"bytes_of", text.is_original() ? "original" : "decoded"},
          {"before", text.text({around.begin, range.begin})},
          {"text", text.text(range)},
          {"after", text.text({range.end, std::max(range.end, around.end)})}};
}

}  // namespace

SourcesReport::SourcesReport(const MemoryFile& file, const std::vector<std::uint32_t>& ids, const Tokenizer& tokenizer,
                             const MemoryWeights& weights, std::size_t most) {
  std::vector<double> means = weights.sums;
  for (double& mean : means) mean /= static_cast<double>(std::max<std::size_t>(weights.tokens, 1));
  std::vector<std::size_t> sizes;
  nlohmann::json documents = nlohmann::json::array();
  double of_documents = 0;
  std::size_t begin = 0;
  for (const std::uint32_t id : ids) {
    const StoredDocument& document = file.documents()[id];
    sizes.push_back(document.entries());
    const auto first = means.begin() + static_cast<std::ptrdiff_t>(begin);
    const double weight = std::accumulate(first, first + static_cast<std::ptrdiff_t>(sizes.back()), 0.0);
    documents.push_back({{"document", id}, {"name", document.info.name}, {"weight", weight}});
    of_documents += weight;
    begin += sizes.back();
  }
  const double of_question = std::accumulate(means.begin() + static_cast<std::ptrdiff_t>(begin), means.end(), 0.0);
  nlohmann::json spans = nlohmann::json::array();
  std::map<std::size_t, DocumentText> texts;
  for (const SourceSpan& span : heaviest_spans(means, sizes, most)) {
    const StoredDocument& document = file.documents()[ids[span.document]];
    const auto text = texts.try_emplace(span.document, document, tokenizer).first;
    spans.push_back(describe(span, document.info, text->second));
  }
  json_ = {{"tokens", weights.tokens},
           {"memory_weight", of_documents},
           {"question_memory_weight", of_question},
           {"documents", documents},
           {"spans", spans}};
}

std::string SourcesReport::table() const {
  std::string lines =
      fmt::format("\nsources: {:.1f} % of the attention of memory layers went to the documents (mean over {} tokens)\n",
                  100 * json_.at("memory_weight").get<double>(), json_.at("tokens").get<std::size_t>());
  for (const auto& span : json_.at("spans")) {
    const bool original = span.at("bytes_of") == "original";
    lines += fmt::format("{:6.2f} %  {}, bytes {} to {}{}\n          ...{} [{}] {}...\n",
                         100 * span.at("weight").get<double>(), one_line(span.at("name")),
                         span.at("byte_begin").get<std::size_t>(), span.at("byte_end").get<std::size_t>(),
                         original ? "" : " of the decoded text", one_line(span.at("before")), one_line(span.at("text")),
                         one_line(span.at("after")));
  }
  return lines;
}

}  // namespace memlane
