/** The same application, its spans given OpenInference's names on their way out. */
import './vercel_ai_v7.mjs'
