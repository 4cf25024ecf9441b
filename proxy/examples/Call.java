// JDK 17 or newer: java Call.java. Patterns stand in for a JSON library, which a program of yours would use.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

class Call {
    static final Pattern CONTENT = Pattern.compile("\"content\":\"((?:[^\"\\\\]|\\\\.)*)\"");
    static final Pattern USAGE = Pattern.compile("\"input_tokens\":(\\d+),\"output_tokens\":(\\d+),\"total_tokens\":(\\d+)");

    public static void main(String[] args) throws Exception {
        var base = Optional.ofNullable(System.getenv("DASHSCOPE_HTTP_BASE_URL")).orElse("http://127.0.0.1:8080/api/v1");
        var call = HttpRequest.newBuilder(URI.create(base + "/services/aigc/text-generation/generation"))
            .header("Authorization", "Bearer " + System.getenv("DASHSCOPE_API_KEY"))
            .header("Content-Type", "application/json")
            .header("X-DashScope-SSE", "enable")
            .POST(HttpRequest.BodyPublishers.ofString("""
                {"model": "deepseek-v3",
                 "input": {"messages": [{"role": "user", "content": "你是谁？"}]},
                 "parameters": {"incremental_output": true}}"""))
            .build();
        var out = new java.io.PrintStream(System.out, true, "UTF-8");
        var answer = HttpClient.newHttpClient().send(call, BodyHandlers.ofLines());
        var usage = new String[] {""};
        answer.body().forEach(line -> {
            // An error is the whole body before the first packet, and the last frame after it.
            if (line.startsWith("{\"code\"") || line.startsWith("data:{\"code\"")) {
                System.err.println(line);
                System.exit(1);
            }
            Matcher content = CONTENT.matcher(line), used = USAGE.matcher(line);
            if (content.find()) out.print(content.group(1).translateEscapes());
            if (used.find()) usage[0] = "%s + %s = %s tokens".formatted(used.group(1), used.group(2), used.group(3));
        });
        out.println("\n" + usage[0]);
    }
}
