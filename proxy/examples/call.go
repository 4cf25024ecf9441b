// Go 1.19 or newer: go run call.go
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

type packet struct {
	Output struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	} `json:"output"`
	Usage struct {
		Input  int `json:"input_tokens"`
		Output int `json:"output_tokens"`
		Total  int `json:"total_tokens"`
	} `json:"usage"`
	Code      string `json:"code"`
	Message   string `json:"message"`
	RequestID string `json:"request_id"`
}

func read(text string) (said packet) {
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		fail(err)
	}
	if said.Code != "" {
		fail(fmt.Sprintf("%s: %s (%s)", said.Code, said.Message, said.RequestID))
	}
	return said
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}

func main() {
	base := os.Getenv("DASHSCOPE_HTTP_BASE_URL")
	if base == "" {
		base = "http://127.0.0.1:8080/api/v1"
	}
	body := `{"model":"deepseek-v3","input":{"messages":[{"role":"user","content":"你是谁？"}]},` +
		`"parameters":{"incremental_output":true}}`
	call, err := http.NewRequest("POST", base+"/services/aigc/text-generation/generation", strings.NewReader(body))
	if err != nil {
		fail(err)
	}
	call.Header.Set("Authorization", "Bearer "+os.Getenv("DASHSCOPE_API_KEY"))
	call.Header.Set("Content-Type", "application/json")
	call.Header.Set("X-DashScope-SSE", "enable")
	answer, err := http.DefaultClient.Do(call)
	if err != nil {
		fail(err)
	}
	defer answer.Body.Close()

	var last packet
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 16<<20) // a cumulative packet holds the whole answer
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "{") { // refused before the first packet
			read(line)
		}
		if strings.HasPrefix(line, "data:") {
			last = read(line[len("data:"):])
			fmt.Print(last.Output.Choices[0].Message.Content)
		}
	}
	if err := lines.Err(); err != nil {
		fail(err)
	}
	fmt.Printf("\n%d + %d = %d tokens\n", last.Usage.Input, last.Usage.Output, last.Usage.Total)
}
